"""Smaller pictures, on which a whole network costs as little as a cut one does on the original size."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import cast

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from dms_bench.config.budget import MacsBudget, constraints_of
from dms_bench.config.plugins import TASKS, parse_plugin
from dms_bench.config.supernet import SupernetSpec
from dms_bench.config.task import TaskSpec
from dms_bench.config.trial import Trial
from dms_bench.errors import UserError
from dms_bench.scaling import count
from dms_bench.tasks import make_task
from dms_bench.trial.spaces import untrained

#: Multiples that are tried one after the other: any size, and those that networks of patches and windows take.
_STEPS = (1, 2, 4, 7, 8, 14, 16, 28, 32)


def smaller_pictures(trial: Trial) -> TaskSpec:
    """Return the trial's task with the largest pictures on which its whole network meets the budget.

    MACs grow with the pictures, in steps where layers stride, so that some of the budget may be left.

    Raises:
        UserError: the network runs on no pictures that are small enough, or its weights depend on their size where
            they are to be kept.
    """
    task, network = trial.task, untrained(trial.network)
    whole = _macs(task, network)
    assert whole is not None  # its network runs, or the supernet was refused
    bounds = [bound for bound in constraints_of(trial.budget) if isinstance(bound, MacsBudget)]
    target = min(bound.target if bound.target > 1 else bound.target * whole for bound in bounds)
    sizes = list(_sizes(task))
    found = (_largest([size for size in sizes if not size % step], task, network, target) for step in _STEPS)
    small = next((found for found in found if found is not None), None)
    if small is None:
        raise UserError(f"{trial.network.label()} runs on no pictures that are small enough for {trial.budget.label()}")
    if trial.pipeline != "DMSnp" and _shapes(_built(small, network)) != _shapes(_built(task, network)):
        raise UserError(
            f"weights of {trial.network.label()} depend on the size of pictures, so "
            f"that those of {_size(task)} px cannot go on with smaller ones: leave method {trial.method.kind!r} out"
        )
    return small


def _largest(sizes: Sequence[int], task: TaskSpec, network: SupernetSpec, target: float) -> TaskSpec | None:
    """Return the task at the largest of the sizes at which the network costs no more, or None.

    Also None where the network does not run on one of those that were tried, as with patches of another size.
    """
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        macs = _macs(_at(task, sizes[middle]), network)
        if macs is None:
            return None
        low, high = (middle + 1, high) if macs <= target else (low, middle)
    if not low:
        return None
    chosen = low - 1
    while chosen and not _sees_all(_at(task, sizes[chosen]), network) and _same(task, network, sizes[chosen - 1 : low]):
        chosen -= 1
    return _at(task, sizes[chosen])


def _same(task: TaskSpec, network: SupernetSpec, sizes: Sequence[int]) -> bool:
    return len({_macs(_at(task, size), network) for size in sizes}) == 1


def _sees_all(task: TaskSpec, network: SupernetSpec) -> bool:
    """Tell whether the last row of a picture changes anything, which patches that do not fill it leave out."""
    made = make_task(task, 0)
    example = made.example_input(2).requires_grad_()
    outputs = made.build(network)(example)
    tensors = [tensor for tensor in tree_leaves(outputs) if torch.is_tensor(tensor) and tensor.requires_grad]
    (gradient,) = torch.autograd.grad([tensor.float().pow(2).sum() for tensor in tensors], [example])
    return bool(gradient[..., -1, :].any())


def _sizes(task: TaskSpec) -> Iterator[int]:
    """Yield the sizes that the task takes, up to its own."""
    for size in range(task.picture_step, _size(task) + 1, task.picture_step):
        try:
            type(task).model_validate(_at(task, size).model_dump())
        except ValueError:
            continue
        yield size


def _size(task: TaskSpec) -> int:
    assert task.picture_size is not None
    return int(getattr(task, task.picture_size))


def _at(task: TaskSpec, size: int) -> TaskSpec:
    assert task.picture_size is not None
    return task.model_copy(update={task.picture_size: size})


def _macs(task: TaskSpec, network: SupernetSpec) -> float | None:
    """Return a network's MACs for one sample, or None where it does not run on pictures of that size."""
    return _counted(task.model_dump_json(), network.model_dump_json())


@lru_cache(maxsize=64)
def _counted(task_json: str, network_json: str) -> float | None:
    spec = cast(TaskSpec, parse_plugin(TASKS, json.loads(task_json)))
    try:
        task = make_task(spec, 0)
        return float(count(task.build(SupernetSpec.model_validate_json(network_json)), task.example_input(1)).macs)
    except (
        UserError,
        RuntimeError,
        ValueError,
        AssertionError,
    ):  # of the libraries, where nothing is left of a picture
        return None


def _built(task: TaskSpec, network: SupernetSpec) -> nn.Module:
    return make_task(task, 0).build(network)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
