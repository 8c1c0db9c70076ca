"""From trials to the rows of a leaderboard."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dms_bench.report.records import Record, read_records
from dms_bench.report.statistics import Estimate, estimate, paired_difference
from dms_bench.tracking import names

CONTROL, CEILING = "random", "supernet"
#: What trials of one row may differ in: the seed, and what rows are grouped by anyway.
_NOT_A_SETTING = ("seed", "experiment", "pipeline", "method.kind", "budget.")


@dataclass(frozen=True)
class Row:
    """A method at a budget, over seeds. Its first sixteen fields are the beginning of the CSV."""

    task: str
    model: str
    #: `-` for the supernet, which is not cut.
    budget: str
    #: The method's label, with the settings in which its trials differ.
    method: str
    metric: str
    mean: float | None
    #: Half width of the 95 % interval of the mean over seeds; None for a single seed.
    ci95: float | None
    n: int
    macs: float | None
    params: float | None
    latency_ms: float | None
    search_device_days: float | None
    device: str
    #: Mean of the differences to `random` with the same seed.
    delta_random: float | None
    delta_random_ci95: float | None
    failed: int
    stopped: int
    unfinished: int
    #: Trials whose network is more than 1 % off the budget.
    budget_missed: int
    delta_n: int
    public_device_days: float | None
    device_kind: str
    suite: str
    experiment: str
    pipeline: str
    #: `dms`, `random`, ...: the method without its settings.
    kind: str
    supernet_macs: float | None
    supernet_params: float | None
    supernet_latency_ms: float | None
    higher_is_better: bool
    #: The budget as a number, for ordering.
    budget_order: float
    failed_trials: tuple[str, ...]
    #: Versions, commit, command, ...: every value that occurs among the trials.
    environment: dict[str, tuple[str, ...]] = field(repr=False)


def leaderboard(uri: str, suite: str | None = None) -> list[Row]:
    """Return a row per task, model, budget and method of a suite (default: of all suites), best first.

    Raises:
        UserError: no such store or suite, or it has no trials.
    """
    return rows(read_records(uri, suite))


def rows(records: Sequence[Record]) -> list[Row]:
    """Aggregate trials over their seeds."""
    blocks: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        blocks[_block(record)].append(record)
    return [row for key in sorted(blocks) for row in _block_rows(blocks[key])]


def _block(record: Record) -> tuple[str, ...]:
    tags = record.tags
    return (record.suite, tags[names.EXPERIMENT], tags[names.TASK], tags[names.MODEL], tags[names.PIPELINE])


def _block_rows(records: Sequence[Record]) -> list[Row]:
    by_kind: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_kind[record.tags[names.METHOD]].append(record)
    settings = {kind: varied_settings(members) for kind, members in by_kind.items()}
    found = []
    for kind, members in by_kind.items():
        groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
        for record in members:
            groups[(_budget(record), *(record.params.get(name, "-") for name in settings[kind]))].append(record)
        for group in groups.values():
            controls = by_kind.get(CONTROL, []) if kind not in (CONTROL, CEILING) else []
            shared = set(settings[kind]) | set(settings.get(CONTROL, ()))
            found.append(_row(group, settings[kind], _matching(controls, group[0], shared)))
    return sorted(found, key=_order)


def varied_settings(records: Sequence[Record]) -> list[str]:
    """Return the dotted fields in which trials of one method differ, apart from seed and budget."""
    values: dict[str, set[str | None]] = {}
    for name in sorted({name for record in records for name in record.params}):
        if not name.startswith(_NOT_A_SETTING):
            values[name] = {record.params.get(name) for record in records}
    return [name for name, seen in values.items() if len(seen) > 1]


def _matching(controls: Iterable[Record], ours: Record, settings: set[str]) -> list[Record]:
    """Return the controls at our budget that agree with us in every setting that both have.

    A method's own options are its own; the recipe of the search is missing where a method trains nothing.
    """
    shared = [name for name in settings if not name.startswith("method.") and name in ours.params]
    return [
        control
        for control in controls
        if _budget(control) == _budget(ours)
        and all(control.params.get(name, ours.params[name]) == ours.params[name] for name in shared)
    ]


def _row(group: Sequence[Record], settings: Sequence[str], controls: Sequence[Record]) -> Row:
    first = group[0]
    tags = first.tags
    done = [record for record in group if record.status == names.FINISHED]
    values = _by_seed(done)
    measured = estimate(list(values.values()))
    delta = paired_difference(values, _by_seed(controls)) if controls else Estimate(None, None, 0)
    statuses = [record.status for record in group]
    return Row(
        task=tags[names.TASK],
        model=tags[names.MODEL],
        budget=_budget(first),
        method=_label(first, settings),
        metric=tags[names.METRIC],
        mean=measured.mean,
        ci95=measured.ci95,
        n=measured.n,
        macs=_mean(done, "macs"),
        params=_mean(done, "params"),
        latency_ms=_mean(done, "latency_ms"),
        search_device_days=_mean(done, "search_device_days"),
        device=_distinct(done, names.DEVICE),
        delta_random=delta.mean,
        delta_random_ci95=delta.ci95,
        failed=statuses.count(names.FAILED),
        stopped=statuses.count(names.STOPPED),
        unfinished=statuses.count(names.RUNNING),
        budget_missed=sum(record.metrics.get("budget_missed", 0) > 0 for record in done),
        delta_n=delta.n,
        public_device_days=_mean(done, "public_device_days"),
        device_kind=_distinct(done, names.DEVICE_KIND),
        suite=first.suite,
        experiment=tags[names.EXPERIMENT],
        pipeline=tags[names.PIPELINE],
        kind=tags[names.METHOD],
        supernet_macs=_mean(done, "supernet_macs"),
        supernet_params=_mean(done, "supernet_params"),
        supernet_latency_ms=_mean(done, "supernet_latency_ms"),
        higher_is_better=tags.get(names.HIGHER_IS_BETTER, "true") == "true",
        budget_order=-math.inf if tags[names.METHOD] == CEILING else float(tags.get(names.BUDGET_ORDER, "inf")),
        failed_trials=tuple(sorted(record.name for record in group if record.status == names.FAILED)),
        environment=_environment(group),
    )


def _budget(record: Record) -> str:
    return "-" if record.tags[names.METHOD] == CEILING else record.tags[names.BUDGET]


def _label(record: Record, settings: Sequence[str]) -> str:
    shown = ", ".join(f"{name.removeprefix('method.')}={record.params.get(name, '-')}" for name in settings)
    label = record.tags.get(names.METHOD_LABEL, record.tags[names.METHOD])
    return f"{label} ({shown})" if shown else label


def _by_seed(records: Iterable[Record]) -> dict[int, float]:
    """Return the measure of each seed; the supernet may have been trained once per budget: their mean."""
    values: dict[int, list[float]] = defaultdict(list)
    for record in records:
        if record.status == names.FINISHED and record.value is not None:
            values[record.seed].append(record.value)
    return {seed: math.fsum(several) / len(several) for seed, several in values.items()}


def _mean(records: Sequence[Record], metric: str) -> float | None:
    return estimate([record.metrics[metric] for record in records if metric in record.metrics]).mean


def _distinct(records: Sequence[Record], tag: str) -> str:
    return " / ".join(sorted({record.tags[tag] for record in records if record.tags.get(tag)}))


def _environment(records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = defaultdict(set)
    for different in {record.tags.get(names.ENVIRONMENT): record for record in records}.values():
        for name, value in different.environment.items():
            found[name].add(value)
    return {name: tuple(sorted(values)) for name, values in sorted(found.items())}


def _order(row: Row) -> tuple[object, ...]:
    """The supernet, then budgets from small to large; in each the best first, failures last."""
    mean = math.inf if row.mean is None else (-row.mean if row.higher_is_better else row.mean)
    return (row.budget_order, row.budget, math.isnan(mean), 0.0 if math.isnan(mean) else mean, row.method)
