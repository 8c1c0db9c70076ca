"""Anytime curves: the best that a method has found so far, against what its searches have cost until then.

A search's network before its end costs more than the budget, so that only finished searches count: those with other
settings of the method (epochs, samples, learning rates) come one after another, the cheapest first, and their costs add
up. What is best so far is decided on the validation split, and shown on the test split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dms_bench.report.board import Row
from dms_bench.report.summary.scores import Score, scorable, scored
from dms_bench.report.summary.tasks import Task

#: (share of the MACs of the task's costliest method, score), from left to right.
Curve = list[tuple[float, float]]


class Anytime(NamedTuple):
    """A curve for each method, the mean over tasks from where it has a network in all of them."""

    curves: Mapping[str, Curve]
    tasks: int
    #: Methods that lack one of these tasks.
    left_out: tuple[str, ...]


def anytime(tasks: Sequence[Task], score: Score) -> Anytime | None:
    """Return the curves; None where no search was counted in MACs."""
    found: list[dict[str, Curve]] = []
    for task in tasks:
        curves = _of_task(task, score) if scorable(task, score) else {}
        if curves:
            found.append(curves)
    if not found:
        return None
    every = sorted({method for curves in found for method in curves})
    common = [method for method in every if all(method in curves for curves in found)]
    means = {method: _mean([curves[method] for curves in found]) for method in common}
    return Anytime(means, len(found), tuple(method for method in every if method not in common))


def at(curve: Curve, cost: float) -> float | None:
    """Return the best so far at a cost; None before there is any."""
    return next((score for share, score in reversed(curve) if share <= cost), None)


def _of_task(task: Task, score: Score) -> dict[str, Curve]:
    settings: dict[str, list[Row]] = {}
    for row in task.rows.values():
        if row.search_training_macs is not None and row.mean is not None and row.mean == row.mean:
            settings.setdefault(row.method.partition(" (")[0], []).append(row)
    spent = {method: sum(row.search_training_macs or 0.0 for row in own) for method, own in settings.items()}
    whole = max(spent.values(), default=0.0) or 1.0
    return {method: _so_far(task, own, whole, score) for method, own in settings.items()}


def _so_far(task: Task, rows: Sequence[Row], whole: float, score: Score) -> Curve:
    curve: Curve = []
    cost, best = 0.0, None
    for row in sorted(rows, key=lambda row: row.search_training_macs or 0.0):
        cost += row.search_training_macs or 0.0
        if best is None or _better(row, best):
            best = row
            curve.append((cost / whole, float(scored(task, row.mean, score))))
    return curve


def _better(row: Row, best: Row) -> bool:
    """Decide on the validation split; a setting that was not measured there is not chosen."""
    if row.validation is None or best.validation is None:
        return False
    return row.validation > best.validation if row.higher_is_better else row.validation < best.validation


def _mean(curves: Sequence[Curve]) -> Curve:
    start = max(curve[0][0] for curve in curves)
    places = sorted({share for curve in curves for share, _ in curve if share >= start})
    return [(place, sum(at(curve, place) or 0.0 for curve in curves) / len(curves)) for place in places]
