"""Measures of different tasks on one scale, larger is better.

`relative`: the share of the supernet's measure that is kept, or for losses the share of the network's that the supernet
has: 1 is the network that was not cut. `gap`: 0 is the mean of random architectures and 1 that of the supernet.
"""

from __future__ import annotations

from typing import Any, Literal

from dms_bench.report.board import CONTROL
from dms_bench.report.summary.tasks import Task

Score = Literal["relative", "gap"]
EXPLAINED = {
    "relative": "score: the measure as a share of the supernet's (for losses the supernet's as a share of it)",
    "gap": "score: 0 is the mean of random architectures, 1 that of the supernet",
}


def scorable(task: Task, score: Score) -> bool:
    """Whether a task has what its scale needs: a measured supernet and, for `gap`, random architectures behind it."""
    return _ends(task, score) is not None


def scored(task: Task, values: Any, score: Score) -> Any:
    """Return measures of a task, a number or an array, as scores.

    Raises:
        ValueError: the task is not `scorable`.
    """
    ends = _ends(task, score)
    if ends is None:
        raise ValueError(f"{task.name} has no scale")
    low, high = ends
    if score == "gap":
        return (values - low) / (high - low)
    return values / high if task.higher_is_better else high / values


def _ends(task: Task, score: Score) -> tuple[float, float] | None:
    whole = task.supernet.mean if task.supernet else None
    if whole is None or not whole > 0:  # a share of nothing, or of what is no number
        return None
    if score == "relative":
        perfect = any(value <= 0 for row in task.rows.values() for value in row.values.values())
        return (0.0, whole) if task.higher_is_better or not perfect else None  # nothing is a share of no loss
    controls = [row for row in task.rows.values() if row.kind == CONTROL]
    floor = controls[0].mean if len(controls) == 1 else None
    if floor is None or not (whole > floor if task.higher_is_better else whole < floor):
        return None
    return floor, whole
