"""Pictures that are there, and are not used: counted, said, and put on record with a trial's result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dms_bench_tasks.common.notes import say_once


@dataclass(frozen=True)
class LeftOut:
    """What is not used of one split."""

    #: Pictures, or lines that were to name one.
    count: int
    #: Pictures of the split, used or not.
    of: int
    #: The first of them, and why.
    example: str

    def __add__(self, more: LeftOut) -> LeftOut:
        """Return what is left out for one reason or another."""
        return LeftOut(self.count + more.count, self.of + more.of, self.example or more.example)


def say(data: str, splits: Mapping[str, LeftOut]) -> None:
    """Say on the terminal, once, what is left out of some data."""
    parts = [
        f"{split}: {lost.count} of {lost.of} pictures are left out ({lost.example})" for split, lost in _in(splits)
    ]
    if parts:
        say_once(f"data {data!r}: {'; '.join(parts)}")


def measures(splits: Mapping[str, LeftOut]) -> dict[str, float]:
    """Return the counts as measures of a result, of the splits that lack something."""
    return {f"left_out_{split}": float(lost.count) for split, lost in _in(splits)}


def _in(splits: Mapping[str, LeftOut]) -> Sequence[tuple[str, LeftOut]]:
    return [(split, lost) for split, lost in splits.items() if lost.count]
