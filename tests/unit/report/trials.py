"""Finished trials as a store would return them, made without a store."""

from __future__ import annotations

from collections.abc import Mapping

from dms_bench.report.records import Record
from dms_bench.tracking import names


def record(
    method: str,
    seed: int,
    value: float | None,
    *,
    budget: str = "30%",
    experiment: str = "cnn",
    suite: str = "suite",
    status: str = names.FINISHED,
    higher_is_better: bool = True,
    metrics: Mapping[str, float] | None = None,
) -> Record:
    """Return a trial; without a value it has none."""
    name = f"{experiment}-{method}-{budget}-s{seed}"
    tags = {
        names.TRIAL: f"{suite}/{name}",
        names.EXPERIMENT: experiment,
        names.TASK: "glyphs",
        names.MODEL: "resnet18",
        names.PIPELINE: "DMSnp",
        names.METHOD: method,
        names.BUDGET: budget,
        names.BUDGET_ORDER: budget.rstrip("%"),
        names.METRIC: "top1",
        names.HIGHER_IS_BETTER: str(higher_is_better).lower(),
        names.SEED: str(seed),
        names.STATUS: status,
    }
    measured = {} if value is None else {"test/top1": value}
    return Record(f"{suite}/{name}", name, suite, 0, "", tags, {}, {**measured, **(metrics or {})})
