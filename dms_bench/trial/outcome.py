"""A trial's result as its folder has it: numbers, every one of them, or none."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import ValidationError

from dms_bench.config.method import MethodSpec
from dms_bench.config.task import TaskSpec
from dms_bench.errors import TrialFailure
from dms_bench.scaling import Architecture
from dms_bench.tracking import TrialResult
from dms_bench.trial.storage import WorkFolder


def require_numbers(measured: Mapping[str, float | None], where: str) -> None:
    """Make sure that a measurement came to numbers; None stands for what was not measured.

    Raises:
        TrialFailure: something is not a number, or infinite; JSON has no such numbers, and no leaderboard a place.
    """
    wrong = [f"{name} is {value}" for name, value in measured.items() if value is not None and not math.isfinite(value)]
    if wrong:
        raise TrialFailure(f"evaluation: {', '.join(wrong)} {where}")


def require_measure(task: TaskSpec, metrics: Mapping[str, float], where: str) -> None:
    """Make sure that an epoch's metrics hold what trials are compared by.

    Raises:
        TrialFailure: they do not.
    """
    name = f"val_{task.metric}"
    if name not in metrics:
        given = ", ".join(repr(metric) for metric in sorted(metrics)) or "no metric"
        raise TrialFailure(
            f"{where}: task {task.kind!r} must give {name!r} to loop.epoch_done, as its metric is {task.metric!r}; "
            f"it gave {given}"
        )


def measured_by(task: TaskSpec, metrics: Mapping[str, float], split: str) -> float:
    """Return the value that trials are compared by, from what a task measured on a split.

    Raises:
        TrialFailure: it is not there.
    """
    if task.metric not in metrics:
        returned = ", ".join(repr(metric) for metric in sorted(metrics)) or "nothing"
        raise TrialFailure(
            f"evaluation: task {task.kind!r} must return its metric {task.metric!r} from "
            f"evaluate(..., {split!r}, ...); it returned {returned}"
        )
    return metrics[task.metric]


def found_by(method: MethodSpec, result: object) -> Architecture:
    """Return what a method's search came to.

    Raises:
        TrialFailure: it is no architecture.
    """
    if not isinstance(result, Architecture):
        raise TrialFailure(
            f"search: method {method.kind!r} must return an Architecture from search(...); it returned "
            f"{type(result).__name__}"
        )
    return result


def result_of(folder: WorkFolder) -> TrialResult | None:
    """Return the result in a trial's folder; None if there is none, or one that says nothing.

    Versions before wrote `null` for what was not a number. Such a trial is not finished: it is evaluated again.
    """
    try:
        return TrialResult.model_validate_json(folder.result.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
