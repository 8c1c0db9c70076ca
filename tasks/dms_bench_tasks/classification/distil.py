"""Learning from a teacher's predictions: which teacher, what it is shown, how far from it the student is.

Shape legend:
    B: images
    C: classes
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.scaling.masks.state import strip_hooks
from dms_bench_tasks.classification import model
from dms_bench_tasks.classification.data import DataSource
from dms_bench_tasks.classification.recipe import ClassificationDistillation, Teacher
from dms_bench_tasks.classification.spec import ClassificationTask


class Teaching:
    """A teacher, fixed and in eval mode, and the distance from what it says.

    Args:
        network: the teacher.
        spec: what is asked of it.
        scaling: factor and offset of each channel that turn the student's images into the teacher's, both [1, 3, 1, 1].
    """

    def __init__(
        self, network: nn.Module, spec: ClassificationDistillation, scaling: tuple[Tensor, Tensor] | None = None
    ) -> None:
        self.network, self.spec, self.scaling = network.eval(), spec, scaling

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self.network.to(device)
        if self.scaling is not None:
            self.scaling = (self.scaling[0].to(device), self.scaling[1].to(device))

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """Return the teacher's scores [B, C] for the student's images, scaled to its own size and statistics."""
        if self.scaling is not None:
            factor, offset = self.scaling
            images = images * factor + offset
        size = self.spec.teacher.image_size if self.spec.teacher else None
        if size not in (None, images.size(-1)):
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        scores: Tensor = self.network(images)
        return scores

    def loss(self, scores: Tensor, taught: Tensor) -> Tensor:
        """Return the weighted distance of scores from the teacher's, both [B, C], a scalar."""
        distance = divergence if self.spec.loss == "kl" else decorrelation
        return self.spec.weight * distance(scores.float(), taught.float(), self.spec.temperature)


def divergence(scores: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Return the mean KL divergence of softened predictions [B, C] from a teacher's, times temperature squared."""
    log_student, log_teacher = (F.log_softmax(values / temperature, dim=1) for values in (scores, taught))
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def decorrelation(scores: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Return DIST (Huang et al. 2022): 1 - Pearson's correlation, between the classes of an image and within a class.

    Args:
        scores: the student's, [B, C].
        taught: the teacher's, [B, C].
        temperature: both are softened by it.
    """
    student, teacher = (F.softmax(values / temperature, dim=1) for values in (scores, taught))
    between, within = 1 - _correlation(student, teacher), 1 - _correlation(student.T, teacher.T)
    return (between.mean() + within.mean()) * temperature**2


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return Pearson's correlation of each row, [rows]."""
    return F.cosine_similarity(one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True), dim=1)


def check(teacher: Teacher, task: ClassificationTask) -> None:
    """Refuse a teacher that cannot be had, or knows other classes. Raises UserError."""
    from timm.models import get_pretrained_cfg

    try:
        model.own_size(teacher.model)
    except UserError as error:
        raise UserError(f"distil.teacher: {error}") from error
    if teacher.checkpoint is not None:
        if not Path(teacher.checkpoint).expanduser().is_file():
            raise UserError(f"distil.teacher.checkpoint {teacher.checkpoint!r} does not exist")
        _built(teacher, task)  # weights of another network are refused before anything is trained
    elif teacher.pretrained and ":" not in teacher.model:
        config = get_pretrained_cfg(teacher.model, allow_unregistered=True)
        classes = config.num_classes if config else 0
        if classes != task.data.classes:
            raise UserError(
                f"distil.teacher: timm's weights of {teacher.model!r} tell {classes} classes apart, "
                f"the data have {task.data.classes}: give a checkpoint"
            )


def teaching(
    spec: ClassificationDistillation,
    unpruned: nn.Module | None,
    student: nn.Module,
    source: DataSource,
    task: ClassificationTask,
) -> Teaching:
    """Return the teacher that a recipe asks for.

    Args:
        spec: what is asked for.
        unpruned: the pretrained supernet, where it is to teach.
        student: what is trained; the teacher may be a part of it.
        source: the images.
        task: what the images are.

    Raises:
        UserError: timm cannot build the teacher, or its weights cannot be had.
    """
    if spec.teacher is None:
        assert unpruned is not None  # the recipe asks for it
        if any(module is unpruned for module in student.modules()):
            # Weights are frozen, but batch norm's statistics follow the masks: the original has to be kept.
            unpruned = copy.deepcopy(unpruned)
            strip_hooks(unpruned)
        return Teaching(unpruned, spec)
    network = _built(spec.teacher, task)
    return Teaching(network, spec, _scaling(source.statistics(student), source.statistics(network)))


def _built(teacher: Teacher, task: ClassificationTask) -> nn.Module:
    supernet = SupernetSpec(
        model=teacher.model, pretrained=teacher.pretrained and teacher.checkpoint is None, checkpoint=teacher.checkpoint
    )
    try:
        return model.build(supernet, task.data.classes, task.channels, teacher.image_size or task.image_size, 0)
    except UserError as error:
        raise UserError(f"distil.teacher: {str(error).replace('supernet.', '', 1)}") from error


def _scaling(
    student: tuple[Tensor, Tensor] | None, teacher: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor] | None:
    """Return what turns images normalised by our mean and deviation into those by its; None where they are the same."""
    if (
        student is None
        or teacher is None
        or all(torch.equal(one, other) for one, other in zip(student, teacher, strict=True))
    ):
        return None
    (mean, std), (teacher_mean, teacher_std) = student, teacher
    return (std / teacher_std)[None, :, None, None], ((mean - teacher_mean) / teacher_std)[None, :, None, None]
