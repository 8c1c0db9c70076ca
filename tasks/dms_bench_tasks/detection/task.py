"""Object detection: the task that the runtime sees.

Ultralytics is imported by the functions that use it, once it is set up to stay offline.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.tasks import Loop, Split, StructureHook
from dms_bench_tasks.detection.offline import set_up
from dms_bench_tasks.detection.spec import DetectionRecipe, DetectionTask

if TYPE_CHECKING:
    from dms_bench_tasks.detection.data import Source

#: Training images that batch norm's statistics are estimated from.
RECALIBRATION_IMAGES = 1024
#: Images of a batch on which a network is only looked at, not trained.
PROBE_BATCH = 16


class Detection:
    """Data, networks, training and measure of one trial.

    Args:
        spec: the task.
        seed: the trial's seed: initial weights, order and augmentation of the data.

    Raises:
        UserError: Ultralytics is not installed.
    """

    def __init__(self, spec: DetectionTask, seed: int) -> None:
        set_up()
        self.spec, self.seed = spec, seed

    @cached_property
    def _source(self) -> Source:
        from dms_bench_tasks.detection.data import Source

        return Source(self.spec)

    def build(self, supernet: SupernetSpec) -> nn.Module:
        """Build the supernet on the CPU. Raises UserError for what Ultralytics cannot build."""
        from dms_bench_tasks.detection import model

        return model.build(supernet, len(self._source.names), self.seed)

    def example_input(self, batch: int = 2) -> Tensor:
        """Return random images, [batch, 3, image_size, image_size], values in [0, 1]."""
        from dms_bench_tasks.detection import model

        return model.example_input(batch, self.spec.image_size)

    def prepare(self) -> None:
        """Draw the scenes, or look at every split of other data. Raises UserError."""
        self._source.check()

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse, before anything runs, a recipe that cannot be used. Raises UserError."""
        recipe = _detection(recipe)
        samples = self.train_samples()
        if recipe.batch_size > samples:
            raise UserError(f"batch_size {recipe.batch_size} is more than the {samples} training images")

    def train_samples(self) -> int:
        """Return the number of training images."""
        return self._source.train_samples()

    def initialise(self, network: nn.Module) -> None:
        """Draw fresh weights as Ultralytics does, at the network's present size."""
        from dms_bench_tasks.detection import model

        model.initialise(model.detector_of(network), self.seed)

    def fit(self, model: nn.Module, recipe: Recipe, loop: Loop, structure: StructureHook | None = None) -> nn.Module:
        """Train `model` in place and return it. Raises TrialFailure where the loss is not finite."""
        from dms_bench_tasks.detection import train

        return train.fit(model, self._source, _detection(recipe), loop, structure, self.seed)

    def losses(self, model: nn.Module, batches: int, device: torch.device) -> Iterator[Tensor]:
        """Yield Ultralytics' loss per image of a few training batches of 16 images, without augmentation."""
        for batch in self._source.probe(batches * PROBE_BATCH, PROBE_BATCH, device):
            losses, _ = model(batch)
            yield losses.sum() / len(batch["img"])

    def recalibrate(self, model: nn.Module, device: torch.device, samples: int | None = None) -> None:
        """Estimate batch norm's statistics on training images, without augmentation; on 1024 unless told."""
        from dms_bench_tasks.detection.measure import recalibrate
        from dms_bench_tasks.detection.model import detector_of

        images = (batch["img"] for batch in self._source.probe(samples or RECALIBRATION_IMAGES, PROBE_BATCH, device))
        recalibrate(model.to(device), detector_of(model), images)

    def evaluate(self, model: nn.Module, split: Split, device: torch.device) -> dict[str, float]:
        """Return `map50_95` and `map50` of a split in percent, `macs_fused` and `params_fused`.

        With the test split, also how many pictures of each split are not used, where some are not.
        """
        from dms_bench_tasks.common.left_out import measures
        from dms_bench_tasks.detection.measure import evaluate
        from dms_bench_tasks.detection.model import detector_of

        measured = evaluate(detector_of(model), self._source.path, split, self.spec.image_size, device)
        return measured | (measures(self._source.left_out()) if split == "test" else {})

    def deployed(self, model: nn.Module) -> nn.Module:
        """Return the network with its predictions decoded, as Ultralytics exports it."""
        from dms_bench_tasks.detection.model import detector_of
        from dms_bench_tasks.detection.portable import decoding

        return decoding(detector_of(model))

    def inputs_and_outputs(self, model: nn.Module) -> tuple[str, str]:
        """Say how boxes are written, which depends on the head."""
        from dms_bench_tasks.detection.portable import chooses_boxes

        size, places = self.spec.image_size, 4 + len(self._source.names)
        if chooses_boxes(model):
            gives = "[batch, boxes, 6]: corners of a box in pixels, its score and its class"
        else:
            gives = f"[batch, {places}, places]: centre, width and height of a box in pixels, a score for each class; "
            gives += "of boxes that overlap the caller keeps the best"
        return f"float32 [batch, 3, {size}, {size}]: RGB from 0 to 1", f"float32 {gives}"

    def export(self, model: nn.Module, folder: Path) -> list[Path]:
        """Write `best.pt`, which Ultralytics' `YOLO` opens, and `train.py`, which trains it on."""
        from dms_bench_tasks.detection.model import detector_of
        from dms_bench_tasks.detection.portable import save

        return save(detector_of(model), self._source.names, self.spec.image_size, folder)


def _detection(recipe: Recipe) -> DetectionRecipe:
    if not isinstance(recipe, DetectionRecipe):
        raise UserError(f"detection trains by a DetectionRecipe, not by a {type(recipe).__name__}")
    return recipe
