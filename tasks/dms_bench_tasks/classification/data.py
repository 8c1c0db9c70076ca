"""What the training loop needs of a data set, whichever it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench_tasks.classification.recipe import ClassificationRecipe
from dms_bench_tasks.common.left_out import LeftOut
from dms_bench_tasks.common.sharding import WHOLE, Shard

#: Images [batch, channels, size, size], normalised, and labels [batch], on the device asked for.
Batch = tuple[Tensor, Tensor]
Split = Literal["train", "val", "test"]
EVALUATION_BATCH = 256


class TrainBatches(Protocol):
    """The training split in epochs of shuffled, augmented batches."""

    #: Optimiser steps per epoch; each takes `grad_accum_steps` batches.
    steps: int

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Return the batches of one epoch; the order depends on the seed and the epoch only."""


class DataSource(Protocol):
    """A data set with three separate splits."""

    def check(self) -> None:
        """Make or check the data. Raises UserError where it is missing or not what the suite says."""

    def left_out(self) -> dict[str, LeftOut]:
        """Return what is not used of each split, as far as that is known."""

    def train_samples(self) -> int:
        """Return the number of training images."""

    def check_recipe(self, recipe: ClassificationRecipe) -> None:
        """Raise UserError for options that this data set cannot apply."""

    def train(
        self, model: nn.Module, recipe: ClassificationRecipe, shard: Shard, device: torch.device, seed: int
    ) -> TrainBatches:
        """Return this worker's part of the training batches."""

    def statistics(self, model: nn.Module) -> tuple[Tensor, Tensor] | None:
        """Return mean and deviation, [channels] each, that a network's images are normalised by; None: as all are."""

    def normalisation(self, model: nn.Module) -> str:
        """Say by which mean and deviation a network's images are normalised, and of which range that is."""

    def evaluation(
        self, model: nn.Module, split: Split, device: torch.device, shard: Shard = WHOLE, limit: int | None = None
    ) -> Iterator[Batch]:
        """Return each image of the split once, without augmentation, or `limit` drawn at random."""


def micro_batch(recipe: ClassificationRecipe, shard: Shard) -> int:
    """Return the images of one forward pass of one worker.

    Raises:
        UserError: the batch cannot be split evenly, or mixup gets an odd number.
    """
    parts = shard.count * recipe.grad_accum_steps
    size, rest = divmod(recipe.batch_size, parts)
    if rest or not size:
        raise UserError(
            f"batch_size {recipe.batch_size} cannot be split over {shard.count} workers x "
            f"{recipe.grad_accum_steps} grad_accum_steps: make it a multiple of {parts}"
        )
    if recipe.mixes and size % 2:
        raise UserError(f"mixup and cutmix need an even batch, not {size} images per worker and micro-batch")
    return size


def steps_per_epoch(samples: int, recipe: ClassificationRecipe) -> int:
    """Return the full batches in an epoch, or as many as the recipe wants. Raises UserError when there is none."""
    if samples < recipe.batch_size:
        raise UserError(f"batch_size {recipe.batch_size} is more than the {samples} training images")
    return recipe.samples_per_epoch(samples) // recipe.batch_size
