"""The questions that a summary is over: one experiment at one budget each, with what every method scored there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from dms_bench.report.board import CEILING, CONTROL, OURS, UNCUT, Row
from dms_bench.report.format import number_of

#: Names that are listed of what is left out.
_LISTED = 6


@dataclass(frozen=True)
class Task:
    """One experiment at one budget."""

    name: str
    #: What the budgets of one experiment have in common.
    experiment: tuple[str, ...]
    rows: Mapping[str, Row]
    #: The network that is not cut, if it was measured.
    supernet: Row | None
    higher_is_better: bool

    def finite(self, method: str) -> dict[int, float]:
        """Return what a method measured, by seed, without trials that diverged."""
        row = self.rows.get(method)
        return {seed: value for seed, value in row.values.items() if math.isfinite(value)} if row else {}


@dataclass(frozen=True)
class Complete:
    """Tasks that all of some methods have answered, with the same seeds."""

    methods: tuple[str, ...]
    tasks: tuple[Task, ...]
    #: Of each task an array (methods, seeds).
    values: tuple[Any, ...]
    #: What is not in it, in sentences.
    left_out: tuple[str, ...]

    @property
    def signed(self) -> list[Any]:
        """Of each task an array (methods, seeds) in which larger is better."""
        return [own if task.higher_is_better else -own for task, own in zip(self.tasks, self.values, strict=True)]

    def index(self, kind: str) -> int | None:
        """Return the place of the only method of a kind (`dms`, `random`); None where there is none, or several."""
        places = [place for place, name in enumerate(self.methods) if self.tasks[0].rows[name].kind == kind]
        return places[0] if len(places) == 1 else None

    @property
    def dms(self) -> int | None:
        """The place of DMS."""
        return self.index(OURS)

    @property
    def random(self) -> int | None:
        """The place of random architectures."""
        return self.index(CONTROL)


def tasks_of(rows: Sequence[Row]) -> list[Task]:
    """Return the tasks of a board; the supernet, which is not cut, is one of no task's methods."""
    several = len({row.suite for row in rows}) > 1
    found = []
    for experiment, members in groupby(rows, key=_experiment):
        block = list(members)
        supernet = next((row for row in block if row.kind == CEILING), None)
        for budget, methods in groupby((row for row in block if row.kind not in UNCUT), key=lambda row: row.budget):
            of_methods = {row.method: row for row in methods}
            suite, name = experiment[:2]
            found.append(
                Task(
                    f"{f'{suite}/' if several else ''}{name} at {budget}",
                    experiment,
                    of_methods,
                    supernet,
                    block[0].higher_is_better,
                )
            )
    return found


def complete(tasks: Sequence[Task]) -> Complete | None:
    """Return a large block of methods that have all answered the same tasks; None where there is none of two.

    From every start methods are taken one after another, next the one that leaves most tasks, and the block with the
    most methods x tasks is kept.
    """
    import numpy

    answered = {
        method: frozenset(index for index, task in enumerate(tasks) if task.finite(method))
        for method in sorted({method for task in tasks for method in task.rows})
    }
    starts = {own: method for method, own in reversed(answered.items())}  # one of those that answered the same tasks
    blocks = [block for start in starts.values() for block in _grown(tasks, answered, start)]
    if not blocks:
        return None
    best = max(blocks, key=lambda block: (len(block[0]) * len(block[1]), len(block[1])))
    chosen = sorted(best[0])
    kept = tuple(tasks[index] for index in sorted(best[1]))
    seeds = [_common_seeds(task, chosen) for task in kept]
    values = tuple(
        numpy.array([[task.finite(method)[seed] for seed in own] for method in chosen])
        for task, own in zip(kept, seeds, strict=True)
    )
    return Complete(tuple(chosen), kept, values, tuple(_left_out(tasks, kept, chosen, seeds)))


def _grown(
    tasks: Sequence[Task], answered: Mapping[str, frozenset[int]], start: str
) -> Iterator[tuple[list[str], frozenset[int]]]:
    """Yield ever more methods with ever fewer common tasks."""
    methods, common = [start], answered[start]
    others = [method for method in answered if method != start]
    while others and common:
        following = max(others, key=lambda method: len(common & answered[method]))
        others.remove(following)
        with_it = _with_seeds(tasks, [*methods, following], common & answered[following])
        if with_it:
            methods, common = [*methods, following], with_it
            yield methods, common


def _experiment(row: Row) -> tuple[str, ...]:
    return (row.suite, row.experiment, row.task, row.model, row.pipeline, row.weights)


def _common_seeds(task: Task, methods: Sequence[str]) -> list[int]:
    return sorted(set.intersection(*(set(task.finite(method)) for method in methods)))


def _with_seeds(tasks: Sequence[Task], methods: Sequence[str], among: frozenset[int]) -> frozenset[int]:
    return frozenset(index for index in among if _common_seeds(tasks[index], methods))


def _left_out(
    tasks: Sequence[Task], kept: Sequence[Task], methods: Sequence[str], seeds: Sequence[Sequence[int]]
) -> list[str]:
    sentences = []
    dropped = [task.name for task in tasks if task not in kept]
    if dropped:
        sentences.append(
            f"{number_of(len(dropped), 'task')} that these methods have not all answered: {_some(dropped)}."
        )
    others = sorted({method for task in tasks for method in task.rows} - set(methods))
    if others:
        lack = "lacks" if len(others) == 1 else "lack"
        sentences.append(f"{number_of(len(others), 'method')} that {lack} one of these tasks: {_some(others)}.")
    spare = sum(
        len(task.finite(method)) - len(own) for task, own in zip(kept, seeds, strict=True) for method in methods
    )
    if spare:
        sentences.append(f"{number_of(spare, 'finished trial')} whose seed another method lacks.")
    rows = [task.rows[method] for task in kept for method in methods]
    diverged = sum(not math.isfinite(value) for row in rows for value in row.values.values())
    for amount, what in (
        (diverged, "diverged"),
        (sum(row.failed for row in rows), "failed"),
        (sum(row.stopped for row in rows), "stopped early"),
        (sum(row.unfinished for row in rows), "not finished"),
    ):
        if amount:
            sentences.append(f"{number_of(amount, 'trial')}: {what}.")
    return sentences


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
