"""The training loop of tasks that have no trainer of a library: epochs of optimiser steps, workers, checkpoints.

Pretraining, search and retraining differ by the structure hook alone.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dms_bench.errors import TrialFailure
from dms_bench.tasks import Loop, StructureHook
from dms_bench_tasks.common.recipe import SteppedRecipe
from dms_bench_tasks.common.sharding import Shard

#: A finite loss is asked for on every step on a CPU; elsewhere asking waits for the device.
_STEPS_BETWEEN_CHECKS = 50

Batch = TypeVar("Batch")
AnyRecipe = TypeVar("AnyRecipe", bound=SteppedRecipe)


class TrainingLoop(ABC, Generic[Batch, AnyRecipe]):
    """One stage between two of its epochs: all that a checkpoint must hold.

    Subclasses know data, loss and optimiser. They set `optimizer` (None where no weight is trained) and `steps`,
    and call `distribute` when the network is as it will be trained.

    Args:
        model: trained in place.
        recipe: how.
        loop: the runtime's side.
        structure: what a search adds to a step.
        seed: decides the order and augmentation of the data.
    """

    optimizer: torch.optim.Optimizer | None
    #: Optimiser steps of an epoch.
    steps: int

    def __init__(
        self, model: nn.Module, recipe: AnyRecipe, loop: Loop, structure: StructureHook | None, seed: int
    ) -> None:
        self.model, self.recipe, self.loop, self.structure, self.seed = model, recipe, loop, structure, seed
        self.epoch = 0
        self.shard = Shard(loop.rank, loop.world_size)
        self.replica: nn.Module = model

    # What a task says.

    @abstractmethod
    def batches(self) -> Iterator[Batch]:
        """Make everything ready for epoch `self.epoch`, and return this worker's micro-batches of it.

        Nothing random may outlive an epoch, so that a resumed run repeats an undisturbed one.
        """

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Return the task's loss on a micro-batch, a scalar; `replica` is the network to call, under `autocast`."""

    @abstractmethod
    def clip(self) -> None:
        """Bound the gradients before the optimiser's step."""

    @abstractmethod
    def advance(self, done: int) -> None:
        """Advance schedules and averages after the step that was number `done` of the stage, from 1."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Return what is measured after an epoch."""

    def parts(self) -> dict[str, Any]:
        """Return what else a checkpoint holds, by name: things with a state; None are left out."""
        return {"optimizer": self.optimizer, "structure": self.structure}

    def model_state(self) -> dict[str, Any]:
        """Return the network's state."""
        return self.model.state_dict()

    def load_model(self, state: dict[str, Any]) -> None:
        """Take up what `model_state` returned. Raises KeyError or RuntimeError where it does not fit."""
        self.model.load_state_dict(state)

    # What is the same for all.

    def distribute(self, **options: Any) -> None:
        """Let several workers share their gradients; options as of `DistributedDataParallel`."""
        if self.loop.world_size > 1:
            devices = [self.loop.device] if self.loop.device.type == "cuda" else None
            self.replica = DistributedDataParallel(self.model, device_ids=devices, **options)

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of a forward pass."""
        return torch.autocast(self.loop.device.type, torch.bfloat16, enabled=self.recipe.amp == "bf16")

    def run(self) -> None:
        """Train from where the stage was left to its end.

        Raises:
            TrialFailure: the loss is not finite, or the stage's checkpoint does not fit.
        """
        self.resume(self.loop.resume())
        while self.epoch < self.recipe.epochs:
            metrics = self.run_epoch()
            self.loop.epoch_done(self.epoch, metrics, self.state())

    def run_epoch(self) -> dict[str, float]:
        """Train for one epoch, validate, and return what is worth a curve."""
        batches = self.batches()
        started = time.perf_counter()
        total = torch.zeros((), device=self.loop.device)
        steps = 0
        while micro_batches := list(islice(batches, self.recipe.grad_accum_steps)):
            total += self._step(steps, micro_batches)
            steps += 1
            if self.loop.device.type == "cpu" or steps % _STEPS_BETWEEN_CHECKS == 0 or steps == self.steps:
                self._check(total, steps)
            self.loop.tick()
        seconds = time.perf_counter() - started
        self.epoch += 1
        metrics = {
            "train_loss": self._mean(total / max(1, steps)),
            "samples_per_s": steps * self.recipe.batch_size / seconds,
        }
        if self.optimizer is not None:
            metrics["lr"] = max(group["lr"] for group in self.optimizer.param_groups)
        metrics |= self.validate()
        metrics["seconds"] = time.perf_counter() - started
        return metrics | (self.structure.metrics() if self.structure else {})

    def _step(self, step: int, micro_batches: list[Batch]) -> Tensor:
        """Take one optimiser step and return its loss without the hook's.

        A step may have several forward and backward passes, one per micro-batch. The hook begins and
        ends with the step; its loss is added once, in the last pass.
        """
        done = self.epoch * self.steps + step
        if self.structure is not None:
            self.structure.begin_step(done / (self.recipe.epochs * self.steps))
        loss = torch.zeros((), device=self.loop.device)
        for number, batch in enumerate(micro_batches, start=1):
            last = number == len(micro_batches)
            with self._local(not last):
                part = self.loss(batch) / len(micro_batches)
                loss += part.detach()
                if self.structure is not None and last:
                    part = part + self.structure.loss()
                torch.autograd.backward(part)
        if self.optimizer is not None:
            self.clip()
            self.optimizer.step()
        if self.structure is not None:
            self.structure.end_step()
        self.model.zero_grad(set_to_none=True)
        self.advance(done + 1)
        return loss

    def _local(self, local: bool) -> AbstractContextManager[None]:
        """Let workers share gradients in the last pass of a step only."""
        if local and isinstance(self.replica, DistributedDataParallel):
            return self.replica.no_sync()
        return nullcontext()

    def _check(self, total: Tensor, steps: int) -> None:
        if not math.isfinite(value := float(total)):
            stage = "search" if self.structure else "training"
            raise TrialFailure(f"{stage}: the loss is {value} in epoch {self.epoch + 1}, step {steps}: try a lower lr")

    def _mean(self, value: Tensor) -> float:
        if self.loop.world_size > 1:
            dist.all_reduce(value)
        return float(value / self.loop.world_size)

    def state(self) -> dict[str, Any]:
        """Return the state at the end of an epoch; the order of the data and all randomness follow from `epoch`."""
        state: dict[str, Any] = {"epoch": self.epoch, "model": self.model_state()}
        return state | {name: part.state_dict() for name, part in self.parts().items() if part is not None}

    def resume(self, state: dict[str, Any] | None) -> None:
        """Take up a state that `state` returned; None starts afresh.

        Raises:
            TrialFailure: it does not fit.
        """
        if state is None:
            return
        try:
            self.load_model(state["model"])
            for name, part in self.parts().items():
                if part is not None:
                    part.load_state_dict(state[name])
            self.epoch = int(state["epoch"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TrialFailure(f"the checkpoint of this stage is damaged or of another network: {reason}") from error


@contextmanager
def frozen(weights: list[nn.Parameter]) -> Iterator[None]:
    """Take weights out of training for a while."""
    trained = [weight for weight in weights if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)
