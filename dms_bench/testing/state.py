"""States to begin in, and states to compare."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dms_bench.config.task import TaskSpec
from dms_bench.config.trial import Resources
from dms_bench.errors import TrialFailure, UserError
from dms_bench.trial.group import WorkerGroup
from dms_bench.trial.meter import Meter
from dms_bench.trial.stage_loop import Log, StageLoop
from dms_bench.trial.storage import WorkFolder

CPU = torch.device("cpu")
#: States of the process's own generators: what has happened in a process must not matter.
HERE, ELSEWHERE = 11, 12


def unsettle(state: int) -> None:
    """Bring the generators of the process into a state that a task or method must not depend on."""
    random.seed(state)
    np.random.seed(state)
    torch.manual_seed(state)


def stage_loop(folder: Path, log: Log | None, rank: int, workers: int, task: TaskSpec | None = None) -> StageLoop:
    """Return the runtime's own side of a stage, in a folder that may hold an earlier attempt."""
    group = WorkerGroup(CPU, Resources(workers=workers), rank)
    work = WorkFolder(folder)
    return StageLoop(work.stage("training"), group, Meter(work, group.hardware(), writes=False), log, measures=task)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a network's weights and buffers."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items() if torch.is_tensor(value)}


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return the first thing in which two states differ and by how much; nothing where they do not."""
    for name in (*one, *(name for name in other if name not in one)):
        if name not in one or name not in other:
            return f"set of names: {name!r} is in one alone"
        first, second = one[name], other[name]
        if not (torch.is_tensor(first) and torch.is_tensor(second)):
            if first != second:
                return name
        elif first.shape != second.shape:
            return f"{name!r}, of shape {tuple(second.shape)} in place of {tuple(first.shape)}"
        elif not torch.equal(first, second):
            return f"{name!r}, by up to {float((first.double() - second.double()).abs().max()):.2g}"
    return ""


@contextmanager
def as_broken(whose: str) -> Iterator[None]:
    """Say whose promise is broken; what the runtime would refuse is one, too."""
    try:
        yield
    except (AssertionError, TrialFailure, UserError) as error:
        raise AssertionError(f"{whose}: {error}") from error
