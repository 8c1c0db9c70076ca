"""What a task proposes for a network and data that a user brings: fields of an experiment, each with its reason.

A task names a function in its specification (`proposal`), which takes a `Brought` and returns a `Proposal`; it says in
`takes` what it is to be asked about. `dms-bench new` adds what is the same for all tasks: budget, methods and seeds.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

#: Files of a folder that are looked at to tell what it holds.
_LOOKED_AT = 10_000


@dataclass(frozen=True)
class Brought:
    """What a user has, and the machine that it is to run on."""

    #: The network, as a suite names it, or the file of a trained one.
    model: str
    #: A folder, a file, or the name of a data set.
    data: str
    #: Path of weights to start from.
    checkpoint: str | None = None
    #: Start from the library's own weights.
    pretrained: bool = False
    #: GPUs of the machine.
    gpus: int = 0
    #: Processors of the machine.
    cpus: int = 1

    @property
    def path(self) -> Path:
        """The data as a path, `~` written out."""
        return Path(os.path.expanduser(self.data))

    def holds(self, endings: Collection[str]) -> bool:
        """Whether the data is a file with one of some endings (`.png`), or a folder with such files in it."""
        if not self.path.is_dir():
            return self.path.suffix.lower() in endings
        names = (name for _, _, files in os.walk(self.path, followlinks=True) for name in files)
        return any(Path(name).suffix.lower() in endings for name in islice(names, _LOOKED_AT))


@dataclass(frozen=True)
class Choice:
    """A field of the experiment, what it is set to, and why."""

    #: Its path, such as `task.image_size`.
    field: str
    value: Any
    #: A reason in a line, without a full stop; empty where the value explains itself.
    why: str = ""


@dataclass(frozen=True)
class Proposal:
    """An experiment without budget, methods and seeds."""

    #: The choices, in the order in which they are written.
    choices: Sequence[Choice]
    #: What the smoke variant lays over the experiment, so that it runs in little time.
    smoke: Mapping[str, Any]
    #: The data's short name.
    data_name: str


def power_of_two(most: float) -> int:
    """Return the largest power of two that is not above `most`; 1 at least."""
    return 1 << max(0, int(most).bit_length() - 1)


def epochs_for(steps: int, per_epoch: int, least: int, most: int) -> int:
    """Return how many epochs make about `steps` optimiser steps, within bounds.

    Args:
        steps: wanted in all.
        per_epoch: steps of an epoch.
        least: fewest epochs.
        most: most epochs.
    """
    return min(most, max(least, round(steps / max(1, per_epoch))))
