"""Image classification: the task that the runtime sees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.tasks import Loop, Split, StructureHook
from dms_bench_tasks.classification import distil, measure, model, train
from dms_bench_tasks.classification.data import DataSource
from dms_bench_tasks.classification.data_spec import TimmData
from dms_bench_tasks.classification.optim import check_optimizer
from dms_bench_tasks.classification.recipe import ClassificationRecipe
from dms_bench_tasks.classification.spec import ClassificationTask
from dms_bench_tasks.common.left_out import measures

#: Training images that batch norm's statistics are estimated from.
RECALIBRATION_IMAGES = 4096
#: Images of a batch on which a network is only looked at, not trained.
PROBE_BATCH = 64


class Classification:
    """Data, networks, training and measure of one trial.

    Args:
        spec: the task.
        seed: the trial's seed: initial weights, order and augmentation of the data, dropout.
    """

    class_axis: ClassVar[int] = -1

    def __init__(self, spec: ClassificationTask, seed: int) -> None:
        self.spec, self.seed = spec, seed
        self._data = _open_data(spec)

    def build(self, supernet: SupernetSpec) -> nn.Module:
        """Build the supernet on the CPU. Raises UserError for what timm cannot build."""
        spec = self.spec
        return model.build(supernet, spec.data.classes, spec.channels, spec.image_size, self.seed)

    def example_input(self, batch: int = 2) -> Tensor:
        """Return random inputs of shape [batch, channels, image_size, image_size]."""
        return model.example_input(batch, self.spec.channels, self.spec.image_size)

    def prepare(self) -> None:
        """Generate the embedded data, or look at every split of the others. Raises UserError."""
        self._data.check()

    def initialise(self, network: nn.Module) -> None:
        """Draw fresh weights by timm's own rules, at the network's present size."""
        model.initialise(network, self.seed)

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse, before anything runs, a recipe that cannot be used. Raises UserError."""
        recipe = _classification(recipe)
        check_optimizer(recipe)
        if recipe.distil is not None and recipe.distil.teacher is not None:
            distil.check(recipe.distil.teacher, self.spec)
        self._data.check_recipe(recipe)

    def train_samples(self) -> int:
        """Return the number of training images."""
        return self._data.train_samples()

    def fit(
        self,
        model: nn.Module,
        recipe: Recipe,
        loop: Loop,
        structure: StructureHook | None = None,
        teacher: nn.Module | None = None,
    ) -> nn.Module:
        """Train `model` in place and return it. Raises TrialFailure where the loss is not finite."""
        self.check_recipe(recipe)
        image_recipe = _classification(recipe)
        taught = (
            distil.teaching(image_recipe.distil, teacher, model, self._data, self.spec) if image_recipe.distil else None
        )
        return train.fit(model, self._data, self.spec.data.classes, image_recipe, loop, structure, taught, self.seed)

    def losses(self, model: nn.Module, batches: int, device: torch.device) -> Iterator[Tensor]:
        """Yield the cross entropy of a few training batches of 64 images, without augmentation."""
        images = self._data.evaluation(model, "train", device, limit=batches * PROBE_BATCH)
        whole = [torch.cat(parts) for parts in zip(*images, strict=True)]
        for inputs, labels in zip(*(torch.split(part, PROBE_BATCH) for part in whole), strict=True):
            yield functional.cross_entropy(model(inputs), labels)

    def recalibrate(self, model: nn.Module, device: torch.device, samples: int | None = None) -> None:
        """Estimate batch norm's statistics on training images, without augmentation."""
        limit = samples or RECALIBRATION_IMAGES
        batches = self._data.evaluation(model.to(device), "train", device, limit=limit)
        measure.recalibrate(model, batches)

    def evaluate(self, model: nn.Module, split: Split, device: torch.device) -> dict[str, float]:
        """Return `top1` (and `top5`) in percent, `loss` and `n` of a split.

        With the test split, also how many pictures of each split are not used, where some are not.
        """
        measured = measure.measure(model, self._data.evaluation(model.to(device), split, device), device)
        return measured | (measures(self._data.left_out()) if split == "test" else {})

    def labelled(
        self, model: nn.Module, split: Literal["train", "val", "test"], most: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images [batch, channels, size, size] as evaluation sees them, and labels [batch]; `most` at most."""
        for images, labels in self._data.evaluation(model, split, torch.device("cpu"), limit=most):
            yield images[:most], labels[:most]  # whole batches are read: the last may have too many
            most -= len(labels)

    def inputs_and_outputs(self, model: nn.Module) -> tuple[str, str]:
        """Say how pictures are normalised, and what the scores are of."""
        size = self.spec.image_size
        inputs = f"float32 [batch, {self.spec.channels}, {size}, {size}]: pixels {self._data.normalisation(model)}"
        return inputs, f"float32 [batch, {self.spec.data.classes}]: a score for each class, before the softmax"

    def export(self, model: nn.Module, folder: Path) -> list[Path]:
        """Write nothing: timm opens no network whose layers differ from its own."""
        return []


def _classification(recipe: Recipe) -> ClassificationRecipe:
    if not isinstance(recipe, ClassificationRecipe):
        raise UserError(f"classification trains by a ClassificationRecipe, not by a {type(recipe).__name__}")
    return recipe


def _open_data(task: ClassificationTask) -> DataSource:
    """Return the task's data; nothing is read before it is used."""
    if isinstance(task.data, TimmData):
        from dms_bench_tasks.classification.timm_data import TimmSource

        return TimmSource(task.data, task.image_size, task.channels)
    from dms_bench_tasks.classification.embedded import EmbeddedSource

    return EmbeddedSource(task.data, task.image_size, task.channels)
