"""What our trials measured for one row of a published table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from dms_bench.config.published import Measure, Selector
from dms_bench.errors import UserError
from dms_bench.report.records import Record
from dms_bench.report.statistics import Estimate, estimate
from dms_bench.tracking import names

#: What a stage of a recipe is summed up by.
_RECIPE = ("epochs", "opt", "lr", "batch_size")
_STAGES = ("pretrain", "search", "retrain")


@dataclass(frozen=True)
class Measured:
    """The trials of one row: the finished ones, and how many are not."""

    records: tuple[Record, ...]
    failed: int = 0
    unfinished: int = 0
    #: Whether the final network is measured, or the one that the search left.
    measured_at: Literal["test", "search"] = "test"

    def by_seed(self, value: Callable[[Record], float | None]) -> dict[int, float]:
        """Return a number of every finished trial that has it, by the trial's seed."""
        numbers = {record.seed: value(record) for record in self.records}
        return {seed: number for seed, number in numbers.items() if number is not None and math.isfinite(number)}

    def values(self, measure: Measure) -> dict[int, float]:
        """Return what was measured, by seed."""
        name = names.measured if self.measured_at == "test" else names.searched
        return self.by_seed(lambda record: record.metrics.get(name(measure.metric)))

    def estimate(self, measure: Measure) -> Estimate:
        """Return mean, interval and number of seeds of a measure."""
        return estimate(list(self.values(measure).values()))

    def mean(self, metric: str) -> float | None:
        """Return the mean of a metric, None where no trial has it."""
        return estimate(list(self.by_seed(lambda record: record.metrics.get(metric)).values())).mean

    def days(self, stages: Iterable[str]) -> dict[int, float]:
        """Return the device days of some stages together, by seed; a stage that was not needed costs nothing."""
        metrics = [names.cost_metric(stage) for stage in stages]
        return self.by_seed(lambda record: math.fsum(record.metrics.get(name, 0.0) for name in metrics))

    def over_target(self) -> dict[int, float]:
        """Return by how much the search itself, before it was cut to the budget, was above its target (0.1: 10 %)."""
        loads = self.by_seed(lambda record: record.search_load)
        return {seed: load - 1 for seed, load in loads.items()}

    def texts(self, value: Callable[[Record], str | None]) -> list[str]:
        """Return the different texts that the trials have, in order."""
        return sorted({text for record in self.records if (text := value(record))})

    def tag(self, name: str) -> str:
        """Return the different values of a tag, as one text."""
        return " / ".join(self.texts(lambda record: record.tags.get(name)))

    @property
    def commits(self) -> list[str]:
        """The commits that the trials ran from."""
        return self.texts(lambda record: record.environment.get("git_commit"))

    @property
    def runs(self) -> list[str]:
        """The MLflow runs, in the order of their seeds."""
        return [record.run_id for record in sorted(self.records, key=lambda record: record.seed)]

    @property
    def recipe(self) -> str:
        """How the trials were trained: `search 4 epochs of sgd 0.1 x 64; retrain ...`."""
        return " / ".join(self.texts(_recipe))


def select(records: Iterable[Record], selector: Selector, row: str) -> Measured:
    """Return the trials that answer a row.

    Raises:
        UserError: several settings fit, so that a seed occurs twice.
    """
    matching = [record for record in records if _fits(record, selector)]
    finished = [record for record in matching if record.status == names.FINISHED]
    seeds = [record.seed for record in finished]
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        trials = ", ".join(record.name for record in finished if record.seed == twice)
        raise UserError(f"row {row!r} fits several trials of seed {twice} ({trials}): narrow its 'ours.where'")
    statuses = [record.status for record in matching]
    return Measured(tuple(finished), statuses.count(names.FAILED), statuses.count(names.RUNNING), selector.measured_at)


def _fits(record: Record, selector: Selector) -> bool:
    tags = record.tags
    return (
        tags[names.EXPERIMENT] == selector.experiment
        and tags[names.METHOD] == selector.method
        and all(_same(record.params.get(field), value) for field, value in selector.where.items())
    )


def _same(text: str | None, expected: str | bool | float) -> bool:
    """Tell whether a field of the trial, which MLflow keeps as text, has a value."""
    if text is None or isinstance(expected, str):
        return text == expected
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return type(value) is bool and value == expected if isinstance(expected, bool) else bool(value == expected)


def _recipe(record: Record) -> str:
    parts: list[str] = []
    for stage in _STAGES:
        fields = [record.params.get(f"{stage}.{name}") for name in _RECIPE]
        if fields[0] is not None:
            epochs, optimizer, lr, batch = (text or "?" for text in fields)
            parts.append(f"{stage} {epochs} epochs of {optimizer} {lr} x {batch}")
    return "; ".join(parts)


def distilled(measured: Measured) -> bool:
    """Tell whether the trials learned from a teacher while they were retrained."""
    return any(
        name.startswith("retrain.distil") and text not in ("false", "0", "0.0")
        for record in measured.records
        for name, text in record.params.items()
    )
