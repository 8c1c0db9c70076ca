"""A task as a rehearsal has it: every training ends after its first epoch, which has a few steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dms_bench import pace
from dms_bench.config.recipe import Recipe
from dms_bench.tasks import Loop, Split, Task
from dms_bench.trial.checkpoint import Checkpoints
from dms_bench.trial.rehearsal.record import Call
from dms_bench.trial.rehearsal.watch import Onlooker

#: How often workers add up their gradients, the first time to warm up.
_SUMS = 3


class _EpochRehearsedError(Exception):
    """Ends a training that has shown what there is to see. Not a failure."""


class RehearsedTask:
    """A task, and what its functions take; everything else is the task's own."""

    def __init__(self, task: Task, onlooker: Onlooker) -> None:
        self._task, self._onlooker = task, onlooker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def fit(self, model: nn.Module, recipe: Recipe, loop: Loop, *args: Any, **kwargs: Any) -> nn.Module:
        """Train for one epoch as far as it goes, write its checkpoint, and return the network as it is then."""
        with self._onlooker.call("training", recipe.epochs) as call, suppress(_EpochRehearsedError):
            return self._task.fit(model, recipe, cast(Loop, _OneEpoch(loop, call, self._onlooker)), *args, **kwargs)
        if loop.world_size > 1:
            call.collective = _collective(model, loop.device)
        return model

    def losses(self, model: nn.Module, *args: Any, **kwargs: Any) -> Iterator[Tensor]:
        """Note `Task.losses`, as far as they are taken; what is done with them is part of it."""
        with self._onlooker.call("losses"):
            yield from self._task.losses(model, *args, **kwargs)

    def recalibrate(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        """Note `Task.recalibrate`."""
        with self._onlooker.call("recalibration"):
            self._task.recalibrate(model, *args, **kwargs)

    def evaluate(self, model: nn.Module, split: Split, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Note `Task.evaluate`."""
        with self._onlooker.call(f"evaluation on {split}"):
            return self._task.evaluate(model, split, *args, **kwargs)


class _OneEpoch:
    """A stage's loop that ends after an epoch."""

    def __init__(self, loop: Loop, call: Call, onlooker: Onlooker) -> None:
        self._loop, self._call, self._onlooker = loop, call, onlooker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def epoch_done(self, epoch: int, metrics: dict[str, float], state: dict[str, Any]) -> None:
        """Save what there is, note what that takes, and end the training."""
        call, clock = self._call, self._onlooker.clock
        began = clock()
        self._loop.epoch_done(epoch, metrics, state)
        call.checkpoint_seconds = clock() - began
        files = Checkpoints(self._loop.folder).files()
        call.checkpoint_bytes = files[0].stat().st_size if files else 0
        call.epoch = clock() - self._onlooker.first_batch
        raise _EpochRehearsedError


def rehearsed(task: Task) -> Task:
    """Return the task as a rehearsal has it, where this is one."""
    onlooker = pace.current()
    return cast(Task, RehearsedTask(task, onlooker)) if isinstance(onlooker, Onlooker) else task


def _collective(model: nn.Module, device: torch.device) -> float:
    """Return the seconds in which the workers add up as many numbers as a network has weights; all of them call it."""
    numbers = torch.zeros(sum(weight.numel() for weight in model.parameters()), device=device)
    seconds = []
    for _ in range(_SUMS):
        began = time.perf_counter()
        dist.all_reduce(numbers)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)
