"""Training of image classifiers: data, loss and optimiser of the loop that all stages share."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3, dispatch_clip_grad, distribute_bn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dms_bench.tasks import Loop, StructureHook
from dms_bench_tasks.classification.data import Batch, DataSource
from dms_bench_tasks.classification.distil import Teaching
from dms_bench_tasks.classification.measure import measure
from dms_bench_tasks.classification.model import network, regularised
from dms_bench_tasks.classification.objective import Objective
from dms_bench_tasks.classification.optim import make_optimizer, make_scheduler, weights_of
from dms_bench_tasks.classification.recipe import ClassificationRecipe
from dms_bench_tasks.common.loop import TrainingLoop, frozen
from dms_bench_tasks.common.sharding import derive_seed


def fit(
    model: nn.Module,
    source: DataSource,
    classes: int,
    recipe: ClassificationRecipe,
    loop: Loop,
    structure: StructureHook | None,
    teaching: Teaching | None,
    seed: int,
) -> nn.Module:
    """Train `model` from where the stage was left, and return it with its averaged weights, if any.

    Raises:
        TrialFailure: the loss is not finite, or the stage's checkpoint does not fit.
        UserError: the recipe cannot be used with these data, workers or weights.
    """
    model.to(loop.device)
    if teaching is not None:
        teaching.to(loop.device)
    trains_weights = structure is None or structure.trains_weights
    kept = [] if trains_weights else list(weights_of(model).values())
    with regularised(model, recipe.drop, recipe.drop_path), frozen(kept):
        training = ClassificationTraining(model, source, classes, recipe, loop, structure, teaching, seed)
        training.run()
    training.adopt_average()
    return model


class ClassificationTraining(TrainingLoop[Batch, ClassificationRecipe]):
    """One stage of a classifier."""

    def __init__(
        self,
        model: nn.Module,
        source: DataSource,
        classes: int,
        recipe: ClassificationRecipe,
        loop: Loop,
        structure: StructureHook | None,
        teaching: Teaching | None,
        seed: int,
    ) -> None:
        super().__init__(model, recipe, loop, structure, seed)
        self.source, self.teaching = source, teaching
        self.images = source.train(model, recipe, self.shard, loop.device, seed)
        self.steps = self.images.steps
        self.objective = Objective(recipe, classes)
        self.weights = list(weights_of(model).values())
        self.trains_weights = structure is None or structure.trains_weights
        self.optimizer = make_optimizer(model, recipe) if self.trains_weights else None
        self.scheduler = make_scheduler(self.optimizer, recipe, self.steps) if self.optimizer else None
        decay = recipe.model_ema_decay if self.trains_weights else None
        # Only timm's network is averaged: in a search, importance and ratios are taken as they are.
        self.core = network(model)
        self.average = ModelEmaV3(self.core, decay=decay, use_warmup=recipe.model_ema_warmup) if decay else None
        self.distribute()

    def batches(self) -> Iterator[Batch]:
        """Seed what is random in an epoch and return its images and labels."""
        _seed_all(derive_seed(self.seed, self.epoch, self.loop.rank))
        self._set_mode()
        self.objective.start_epoch(self.epoch)
        return self.images.epoch(self.epoch)

    def loss(self, batch: Batch) -> Tensor:
        """Return the recipe's loss, with the distance from the teacher if there is one."""
        images, targets = self.objective.mix(*batch)
        with self.autocast():
            taught = self.teaching.scores(images) if self.teaching else None
            scores = self.replica(images)
        loss = self.objective.loss(scores.float(), targets)
        if self.teaching is not None and taught is not None:
            loss = loss + self.teaching.loss(scores, taught)
        return loss

    def clip(self) -> None:
        """Bound the gradients as timm does."""
        if self.recipe.clip_grad is not None:
            dispatch_clip_grad(self.weights, self.recipe.clip_grad, mode=self.recipe.clip_mode)

    def advance(self, done: int) -> None:
        """Advance learning rate and average."""
        if self.scheduler is not None:
            self.scheduler.step_update(done)
        if self.average is not None:
            self.average.update(self.core, step=done)

    def validate(self) -> dict[str, float]:
        """Measure the averaged model; in a search the live one, whose masks are current."""
        self._agree()
        model = self.average.module if self.average is not None and self.structure is None else self.model
        images = self.source.evaluation(model, "val", self.loop.device, self.shard)
        return {"val_top1": measure(model, images, self.loop.device, self.shard, tick=self.loop.tick)["top1"]}

    def parts(self) -> dict[str, Any]:
        """Return what else a checkpoint holds; the schedule follows from the epoch."""
        return super().parts() | {"ema": self.average.module if self.average else None}

    def adopt_average(self) -> None:
        """Put the averaged weights into the model."""
        if self.average is not None:
            self.core.load_state_dict(self.average.module.state_dict())

    def _set_mode(self) -> None:
        """Train; where weights are frozen, only the statistics of batch norm follow the masks."""
        self.replica.train(self.trains_weights)
        if not self.trains_weights:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.train()

    def _agree(self) -> None:
        """Average batch norm's statistics over workers: each has seen its own part of the data."""
        if self.loop.world_size > 1:
            for module in (self.model, self.average.module if self.average else None):
                if module is not None:
                    distribute_bn(module, self.loop.world_size, reduce=True)


def _seed_all(seed: int) -> None:
    """Seed what dropout (torch), mixup (NumPy) and augmentation (random) draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
