"""The one training loop: pretraining, searching and retraining differ by the structure hook alone."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from timm.utils import ModelEmaV3, dispatch_clip_grad, distribute_bn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from dms_bench.errors import TrialFailure
from dms_bench.tasks import Loop, StructureHook
from tasks.classification.data import Batch, DataSource, Shard, derive_seed
from tasks.classification.distil import Teaching
from tasks.classification.measure import measure
from tasks.classification.model import network, regularised
from tasks.classification.objective import Objective
from tasks.classification.optim import make_optimizer, make_scheduler, weights_of
from tasks.classification.spec import ClassificationRecipe

#: A finite loss is asked for on every step on a CPU; elsewhere asking waits for the device.
_STEPS_BETWEEN_CHECKS = 50


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
    with regularised(model, recipe.drop, recipe.drop_path), _frozen(model, not trains_weights):
        training = Training(model, source, classes, recipe, loop, structure, teaching, seed)
        training.resume(loop.resume())
        while training.epoch < recipe.epochs:
            metrics = training.run_epoch()
            loop.epoch_done(training.epoch, metrics, training.state())
    training.adopt_average()
    return model


class Training:
    """One stage between two of its epochs: all that a checkpoint must hold."""

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
        self.model, self.source, self.recipe, self.loop = model, source, recipe, loop
        self.structure, self.teaching, self.seed, self.epoch = structure, teaching, seed, 0
        self.shard = Shard(loop.rank, loop.world_size)
        self.batches = source.train(model, recipe, self.shard, loop.device, seed)
        self.objective = Objective(recipe, classes)
        self.weights = list(weights_of(model).values())
        self.trains_weights = structure is None or structure.trains_weights
        self.optimizer = make_optimizer(model, recipe) if self.trains_weights else None
        self.scheduler = make_scheduler(self.optimizer, recipe, self.batches.steps) if self.optimizer else None
        decay = recipe.model_ema_decay if self.trains_weights else None
        # Only timm's network is averaged: in a search, importance and ratios are taken as they are.
        self.core = network(model)
        self.average = ModelEmaV3(self.core, decay=decay, use_warmup=recipe.model_ema_warmup) if decay else None
        self.replica: nn.Module = model
        if loop.world_size > 1:
            devices = [loop.device] if loop.device.type == "cuda" else None
            self.replica = DistributedDataParallel(model, device_ids=devices)

    def run_epoch(self) -> dict[str, float]:
        """Train for one epoch, validate, and return what is worth a curve."""
        # Nothing random outlives an epoch, so that a resumed run repeats an undisturbed one.
        _seed_all(derive_seed(self.seed, self.epoch, self.loop.rank))
        self._set_mode()
        self.objective.start_epoch(self.epoch)
        started = time.perf_counter()
        batches = self.batches.epoch(self.epoch)
        total = torch.zeros((), device=self.loop.device)
        steps = 0
        while micro_batches := list(islice(batches, self.recipe.grad_accum_steps)):
            total += self._step(steps, micro_batches)
            steps += 1
            if self.loop.device.type == "cpu" or steps % _STEPS_BETWEEN_CHECKS == 0 or steps == self.batches.steps:
                self._check(total, steps)
            self.loop.tick()
        seconds = time.perf_counter() - started
        self.epoch += 1
        self._agree()
        metrics = {
            "train_loss": self._mean(total / max(1, steps)),
            "samples_per_s": steps * self.recipe.batch_size / seconds,
        }
        if self.optimizer is not None:
            metrics["lr"] = max(group["lr"] for group in self.optimizer.param_groups)
        metrics["val_top1"] = self._validate()
        metrics["seconds"] = time.perf_counter() - started
        return metrics | (self.structure.metrics() if self.structure else {})

    def _step(self, step: int, micro_batches: list[Batch]) -> Tensor:
        """Take one optimiser step and return its loss without the hook's.

        A step may have several forward and backward passes, one per micro-batch. The hook begins and
        ends with the step; its loss is added once, in the last pass.
        """
        done = self.epoch * self.batches.steps + step
        if self.structure is not None:
            self.structure.begin_step(done / (self.recipe.epochs * self.batches.steps))
        loss = torch.zeros((), device=self.loop.device)
        for number, (images, labels) in enumerate(micro_batches, start=1):
            last = number == len(micro_batches)
            with self._local(not last):
                images, targets = self.objective.mix(images, labels)
                with torch.autocast(self.loop.device.type, torch.bfloat16, enabled=self.recipe.amp == "bf16"):
                    taught = self.teaching.scores(images) if self.teaching else None
                    scores = self.replica(images)
                part = self.objective.loss(scores.float(), targets)
                if self.teaching is not None and taught is not None:
                    part = part + self.teaching.loss(scores, taught)
                part = part / len(micro_batches)
                loss += part.detach()
                if self.structure is not None and last:
                    part = part + self.structure.loss()
                torch.autograd.backward(part)
        if self.optimizer is not None:
            if self.recipe.clip_grad is not None:
                dispatch_clip_grad(self.weights, self.recipe.clip_grad, mode=self.recipe.clip_mode)
            self.optimizer.step()
        if self.structure is not None:
            self.structure.end_step()
        self.model.zero_grad(set_to_none=True)
        if self.scheduler is not None:
            self.scheduler.step_update(done + 1)
        if self.average is not None:
            self.average.update(self.core, step=done + 1)
        return loss

    def _local(self, local: bool) -> AbstractContextManager[None]:
        if local and isinstance(self.replica, DistributedDataParallel):
            return self.replica.no_sync()
        return nullcontext()

    def _check(self, total: Tensor, steps: int) -> None:
        if not math.isfinite(value := float(total)):
            raise TrialFailure(f"training: the loss is {value} in epoch {self.epoch + 1}, step {steps}: try a lower lr")

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

    def _mean(self, value: Tensor) -> float:
        if self.loop.world_size > 1:
            dist.all_reduce(value)
        return float(value / self.loop.world_size)

    def _validate(self) -> float:
        """Measure the averaged model; in a search the live one, whose masks are current."""
        model = self.average.module if self.average is not None and self.structure is None else self.model
        batches = self.source.evaluation(model, "val", self.loop.device, self.shard)
        return measure(model, batches, self.loop.device, self.shard, tick=self.loop.tick)["top1"]

    def adopt_average(self) -> None:
        """Put the averaged weights into the model."""
        if self.average is not None:
            self.core.load_state_dict(self.average.module.state_dict())

    def state(self) -> dict[str, Any]:
        """Return the state at the end of an epoch; the schedule and all randomness follow from `epoch`."""
        state: dict[str, Any] = {"epoch": self.epoch, "model": self.model.state_dict()}
        for name, part in self._parts().items():
            state[name] = part.state_dict()
        return state

    def resume(self, state: dict[str, Any] | None) -> None:
        """Take up a state that `state` returned; None starts afresh."""
        if state is None:
            return
        try:
            self.model.load_state_dict(state["model"])
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.epoch = int(state["epoch"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TrialFailure(f"the checkpoint of this stage is damaged or of another network: {reason}") from error

    def _parts(self) -> dict[str, Any]:
        average = self.average.module if self.average else None
        parts = {"optimizer": self.optimizer, "ema": average, "structure": self.structure}
        return {name: part for name, part in parts.items() if part is not None}


@contextmanager
def _frozen(model: nn.Module, frozen: bool) -> Iterator[None]:
    """Take the weights out of training for a while."""
    weights = [weight for weight in weights_of(model).values() if frozen and weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def _seed_all(seed: int) -> None:
    """Seed what dropout (torch), mixup (NumPy) and augmentation (random) draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
