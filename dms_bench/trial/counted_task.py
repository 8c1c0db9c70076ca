"""What a stage computes, counted: samples that networks were run on, and the MACs of it.

The task's functions are the only way in which a method runs a network on data, so a hook on the network for as long as
one of them runs sees every pass. What a method feeds with numbers of its own (the scores `zen`, `synflow`) is not seen.
A forward pass counts once, one whose gradients are taken three times (activations' gradients, weights' gradients), or
twice where no weight is trained. A masked supernet counts as the whole: its masks multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dms_bench.scaling import Supernet, count
from dms_bench.tasks import Task

#: Told of every pass of a network: samples, and MACs.
Passed = Callable[[int, float], None]


class CountedTask:
    """A task, and a count of what its functions compute; everything else is the task's own.

    Args:
        task: the task.
        passed: told of every forward pass.
        workers: processes that share the batches, or do the same: each does what this one does.
    """

    def __init__(self, task: Task, passed: Passed, workers: int = 1) -> None:
        self._task, self._passed, self._workers = task, passed, workers
        self._macs: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def fit(self, model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        """Count `Task.fit`, the measuring after its epochs included."""
        with self._counted(model):
            return self._task.fit(model, *args, **kwargs)

    def losses(self, model: nn.Module, *args: Any, **kwargs: Any) -> Iterator[Tensor]:
        """Count `Task.losses`, as far as they are taken."""
        with self._counted(model):
            yield from self._task.losses(model, *args, **kwargs)

    def recalibrate(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        """Count `Task.recalibrate`."""
        with self._counted(model):
            self._task.recalibrate(model, *args, **kwargs)

    def evaluate(self, model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Count `Task.evaluate`."""
        with self._counted(model):
            return self._task.evaluate(model, *args, **kwargs)

    @contextmanager
    def _counted(self, model: nn.Module) -> Iterator[None]:
        macs, example = self._macs_of(model), self._task.example_input(1)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            samples = _samples((args, kwargs), example.dim()) * self._workers
            self._passed(samples, samples * macs * _passes(module))

        handle = model.register_forward_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _macs_of(self, model: nn.Module) -> float:
        """Return the MACs of one sample."""
        if model not in self._macs:
            if isinstance(model, Supernet):
                self._macs[model] = model.space.macs
            else:
                self._macs[model] = count(model, self._task.example_input(1)).macs
        return self._macs[model]


def counted(task: Task, passed: Passed, workers: int = 1) -> Task:
    """Return a task whose computations are counted; arguments as above."""
    return cast(Task, CountedTask(task, passed, workers))


def _samples(given: Any, dims: int) -> int:
    """Return the number of rows of what is given to a network: of the first tensor of as many dimensions as inputs."""
    tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
    inputs = next((tensor for tensor in tensors if tensor.dim() == dims), None)
    return 0 if inputs is None else inputs.size(0)


def _passes(model: nn.Module) -> int:
    if not torch.is_grad_enabled():
        return 1
    weights = model.model if isinstance(model, Supernet) else model
    return 3 if any(weight.requires_grad for weight in weights.parameters()) else 2
