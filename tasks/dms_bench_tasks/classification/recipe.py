"""How a classifier is trained in one stage, and what it learns from.

Reading it imports neither torch nor timm. Options carry timm's names and mean what they mean there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dms_bench.config.base import Spec
from dms_bench.config.own_network import NetworkName
from dms_bench.config.supernet import SupernetSpec
from dms_bench.config.task import TaskSpec
from dms_bench.config.units import also_boolean
from dms_bench_tasks.common.recipe import SteppedRecipe

Share = Annotated[float, Field(ge=0, lt=1)]
#: In pixels; more is a mistake.
ImageSize = Annotated[int, Field(ge=8, le=8192)]


class Teacher(Spec):
    """A network of timm that has learnt the task already."""

    model: NetworkName
    """Name of the teacher in timm."""
    pretrained: bool = True
    """Take timm's own weights, where there is no checkpoint."""
    checkpoint: str | None = None
    """Path of a safetensors or weights-only file with the teacher's weights."""
    image_size: ImageSize | None = None
    """Height and width, in pixels, of the images that the teacher is shown, scaled from the student's. null: the
    student's."""


class ClassificationDistillation(Spec):
    """Learn from a teacher's predictions, too: loss = the recipe's own + weight x distance from them."""

    loss: Literal["kl", "dist"] = "kl"
    """Distance from the teacher's predictions. kl: KL divergence of softened predictions; dist: correlation between and
    within classes (Huang et al. 2022)."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the distance, which is added to the recipe's own loss."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Both predictions are softened by it; the distance is multiplied by its square."""
    teacher: Teacher | None = None
    """The teacher. null: the pretrained supernet, as it was before the search."""


class ClassificationRecipe(SteppedRecipe):
    """One training stage. `batch_size` is the number of images per optimiser step, over all workers."""

    epoch_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps of an epoch, where it is to end before all images were seen; for searches of some hundred steps.
    null: all images."""
    opt: str = "sgd"
    """Optimiser: any name that timm knows (sgd, adamw, rmsproptf, lamb, ...)."""
    lr: Annotated[float, Field(gt=0)]
    """Learning rate after the warm-up; the highest one. It is not scaled with the batch."""
    weight_decay: Annotated[float, Field(ge=0)] = 2e-5
    """Weight decay; as in timm, biases and norms go without it."""
    momentum: Share = 0.9
    """Momentum, for optimisers that have one."""
    opt_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the optimiser, such as `{eps: 0.001}`."""
    clip_grad: Annotated[float, Field(gt=0)] | None = None
    """Bound on the gradients in each step, in the sense of `clip_mode`. null: not clipped."""
    clip_mode: Literal["norm", "value", "agc"] = "norm"
    """timm's option. norm: bound the norm of all gradients; value: bound each value; agc: adaptive, relative to the
    norm of the weights."""

    sched: Literal["cosine", "step", "multistep", "poly", "constant"] = "cosine"
    """timm's schedule of the learning rate, advanced on every optimiser step; its times are in epochs."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0
    """Epochs, fractions too, in which the learning rate rises from `warmup_lr` to `lr`; the schedule's own time runs
    meanwhile."""
    warmup_lr: Annotated[float, Field(ge=0)] = 1e-5
    """Learning rate at the beginning of the warm-up."""
    min_lr: Annotated[float, Field(ge=0)] = 0
    """Learning rate at the end of the cosine and poly schedules."""
    decay_epochs: Annotated[float, Field(gt=0)] = 30
    """Epochs between two steps of the schedule `step`."""
    decay_milestones: tuple[Annotated[int, Field(gt=0)], ...] = (30, 60)
    """Epochs at which the schedule `multistep` lowers the learning rate."""
    decay_rate: Annotated[float, Field(gt=0)] = 0.1
    """Factor on the learning rate at each step of `step` and `multistep`; power of `poly`."""

    smoothing: Share = 0.0
    """Label smoothing: share of the target that is spread over all classes."""
    bce_loss: bool = False
    """Binary cross entropy per class instead of cross entropy."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """timm's mixup: parameter alpha of the beta distribution of shares; 0: off."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """timm's cutmix: parameter alpha of the beta distribution of shares; 0: off."""
    mixup_prob: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Chance that a batch is mixed at all, where mixup or cutmix is on."""
    mixup_switch_prob: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Chance of cutmix instead of mixup, where both are on."""
    mixup_off_epoch: Annotated[int, Field(ge=0)] = 0
    """Epochs after which mixup and cutmix stop; 0: never."""
    drop: Share | None = None
    """Dropout before the classifier, besides what the model's own arguments give. null: as the model was built."""
    drop_path: Share | None = None
    """Stochastic depth of the last block, growing linearly from 0 in the first. null: as the model was built."""
    model_ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay, per optimiser step, of a moving average of the weights, which is what is validated and returned; a search
    validates its present network. null: no average."""
    model_ema_warmup: bool = False
    """timm's option: let the average's decay rise from 0 over the first steps."""

    reprob: Annotated[float, Field(ge=0, le=1)] = 0.0
    """timm's random erasing: chance that part of an image is erased."""
    remode: Literal["const", "rand", "pixel"] = "pixel"
    """What an erased part is filled with. const: zeros; rand: one random colour; pixel: a random colour for each
    pixel."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Random translation by up to this many pixels. For the embedded sets only."""
    aa: str | None = None
    """timm's automatic augmentation, such as `rand-m9-mstd0.5`; null: off. For timm's data sets only."""
    color_jitter: Annotated[float, Field(ge=0)] = 0.4
    """timm's random change of brightness, contrast and saturation, by up to this share; as in timm, off where `aa` is
    given (but for its 3a policies). For timm's data sets only."""
    hflip: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Chance of a horizontal flip. For timm's data sets only."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of an image's area that the random crop takes. For timm's data sets only."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Smallest and largest aspect ratio of the random crop. For timm's data sets only."""
    train_interpolation: Literal["random", "bilinear", "bicubic"] = "random"
    """How the random crop is resized; random: by either, drawn for each image. For timm's data sets only."""

    # In no hash of a trial without it.
    distil: Annotated[
        ClassificationDistillation | None,
        Field(exclude_if=lambda distil: distil is None, json_schema_extra=also_boolean),
    ] = None
    """Learn from a teacher's predictions, too; `true` takes the defaults: the pretrained supernet teaches. null: no
    teacher."""

    @field_validator("distil", mode="before")
    @classmethod
    def _true_is_the_defaults(cls, value: Any) -> Any:
        return {} if value is True else None if value is False else value

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} must be less than epochs {self.epochs}")
        return self

    def samples_per_epoch(self, available: int) -> int:
        """Return how many of the training images an epoch takes."""
        return available if self.epoch_steps is None else min(available, self.epoch_steps * self.batch_size)

    def needs_teacher(self) -> bool:
        """Whether the pretrained supernet teaches the stage."""
        return self.distil is not None and self.distil.teacher is None

    def teacher(self, task: TaskSpec, supernet: SupernetSpec) -> tuple[TaskSpec, SupernetSpec] | None:
        """Return the supernet, or a teacher of its own at the size that it is shown."""
        teacher_spec = self.distil.teacher if self.distil else None
        if teacher_spec is None:
            return super().teacher(task, supernet)
        shown = {"image_size": teacher_spec.image_size} if teacher_spec.image_size else {}
        return task.model_copy(update=shown), SupernetSpec(model=teacher_spec.model)

    def weight_files(self) -> list[Path]:
        """Return the file with the weights of a teacher of its own."""
        teacher = self.distil.teacher if self.distil else None
        return [Path(teacher.checkpoint).expanduser()] if teacher and teacher.checkpoint else []

    @property
    def mixes(self) -> bool:
        """Whether images are mixed at all."""
        return self.mixup > 0 or self.cutmix > 0
