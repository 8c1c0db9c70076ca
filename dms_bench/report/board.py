"""From trials to the rows of a leaderboard."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from dms_bench.config.selection import EVERYTHING, Known, Selection, budget_names
from dms_bench.errors import UserError
from dms_bench.report.families import UNTESTED, family
from dms_bench.report.letters import grouped
from dms_bench.report.records import Record, read_records
from dms_bench.report.statistics import Difference, Estimate, difference, estimate, paired_difference
from dms_bench.tracking import names

CONTROL, CEILING, OURS = "random", "supernet", "dms"
#: Held to no budget: no rivals of those that are, and not compared with them.
UNCUT = (CEILING, "longer")
#: Settings that belong to a method alone: those it is tuned by. All others are part of the comparison.
_OWN_SETTINGS = ("method.", "search.")
#: What trials of one row may differ in: the seed, where data lie, and what rows are grouped by anyway.
_NOT_A_SETTING = ("seed", "experiment", "pipeline", "method.kind", "budget.", *names.PLACES)


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
    #: Seeds that both have.
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
    #: The runtime that both were measured in; empty where it was PyTorch.
    latency_runtime: str
    #: Latency as a multiple of the supernet's, which took turns with it in the same process; mean and half width of the
    #: 95 % interval over seeds. What else the machine did met both.
    latency_ratio: float | None
    latency_ratio_ci95: float | None
    higher_is_better: bool
    #: Unit of the measure, empty where it has none, and the digits behind its decimal point.
    unit: str
    decimals: int
    #: Likewise to `dms`; None where it was run with several settings, none of which is chosen.
    delta_dms: float | None
    delta_dms_ci95: float | None
    delta_dms_n: int
    #: Mean on the validation split.
    validation: float | None
    #: Settings of the method's own that were tried; this row has the best of them by `validation`, or the only one.
    settings_tried: int
    #: Mean cost of what the search itself ended with, as a share of its target; above 1 the final cut did the rest.
    search_load: float | None
    #: Hash of the files that the supernet's weights came from; empty where they came from none.
    weights: str
    #: What the search uses, of weights, data, gradients, training and validation; empty where it is not known.
    uses: str
    #: Samples that the search ran networks on, and MACs of that, backward passes included.
    search_samples: float | None
    search_training_macs: float | None
    #: Seconds that processors worked for the search, which do not depend on who else used the machine.
    search_processor_seconds: float | None
    #: The two differences again, for all comparisons of the table together: Holm's p-values, and half widths of
    #: intervals that hold at once; None where there are fewer than two pairs, or no spread.
    delta_random_p: float | None
    delta_random_half: float | None
    delta_dms_p: float | None
    delta_dms_half: float | None
    #: How many comparisons with `random` and `dms` the table makes.
    comparisons: int
    #: Methods at one budget that share a letter are not told apart; empty where too few seeds are in common.
    letters: str
    #: How many pairs of methods were compared for the letters of this budget.
    pairs: int
    #: The budget as a number, for ordering.
    budget_order: float
    #: The measure of each seed.
    values: dict[int, float] = field(repr=False)
    failed_trials: tuple[str, ...]
    #: Versions, commit, command, ...: every value that occurs among the trials.
    environment: dict[str, tuple[str, ...]] = field(repr=False)


def leaderboard(uri: str, suite: str | None = None, *, tuned: bool = False, only: Selection = EVERYTHING) -> list[Row]:
    """Return a row per task, model, budget, method and setting of a suite (default: of all suites), best first.

    Args:
        uri: tracking URI.
        suite: name of the suite.
        tuned: show one setting of each method, the one with the best mean on the validation split over seeds.
        only: which rows, and of which seeds. Rows are left out last, so that nothing about the others depends on it.

    Raises:
        UserError: no such store or suite, it has no trials, or none that settings can be chosen by, or none is chosen.
    """
    records = read_records(uri, suite)
    if not only:
        return rows(records, tuned=tuned)
    only.check([_known(record) for record in records])
    found = rows([record for record in records if only.fits(_known(record), ("seed",))], tuned=tuned)
    return [row for row in found if only.fits(_row_known(row))]


def _known(record: Record) -> Known:
    """Return what a trial is chosen by."""
    tags = record.tags
    # As in its row: the supernet is not cut for a budget.
    budget = () if tags[names.METHOD] == CEILING else budget_names(tags[names.BUDGET])
    return Known((tags[names.EXPERIMENT],), (_name(record), tags[names.METHOD]), budget, (str(record.seed),))


def _row_known(row: Row) -> Known:
    """Return what a row is chosen by, but for the seeds."""
    # Behind a label may stand the settings in which its rows differ.
    label = row.method.rpartition(" (")[0] if row.method.endswith(")") else row.method
    return Known(
        (row.experiment,), (row.method, label, row.kind), () if row.budget == "-" else budget_names(row.budget), ()
    )


def rows(records: Sequence[Record], *, tuned: bool = False) -> list[Row]:
    """Aggregate trials over their seeds."""
    blocks: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        blocks[_block(record)].append(record)
    return [row for key in sorted(blocks) for row in _block_rows(blocks[key], tuned)]


@dataclass(frozen=True)
class _Group:
    """The trials of a row: one setting of a method at one budget."""

    records: Sequence[Record]
    #: The settings to name in the row, and those that the method's other trials differ in.
    shown: tuple[str, ...]
    varied: frozenset[str]
    tried: int

    @property
    def kind(self) -> str:
        return self.records[0].tags[names.METHOD]


def _block(record: Record) -> tuple[str, ...]:
    tags = record.tags
    identity = (names.EXPERIMENT, names.TASK, names.MODEL, names.PIPELINE)
    return (record.edition, *(tags[name] for name in identity), record.weights)


def _block_rows(records: Sequence[Record], tuned: bool) -> list[Row]:
    methods: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        methods[record.tags[names.METHOD], _name(record)].append(record)
    groups = [group for members in methods.values() for group in _groups(members, tuned)]
    compared = [(group, _rivals(group, groups, CONTROL), _rivals(group, groups, OURS)) for group in groups]
    together = family(
        {_pair(group, theirs): _difference(group, theirs) for group, *both in compared for theirs in both}
    )
    found = []
    for group, controls, dms in compared:
        random, ours = (together.comparisons.get(_pair(group, theirs), UNTESTED) for theirs in (controls, dms))
        found.append(
            replace(
                _row(group, controls, dms),
                delta_random_p=random.p,
                delta_random_half=random.half,
                delta_dms_p=ours.p,
                delta_dms_half=ours.half,
                comparisons=together.size,
            )
        )
    return [row for _, members in groupby(sorted(found, key=_order), key=_at) for row in _lettered(list(members))]


def _pair(group: _Group, rivals: Sequence[Record]) -> frozenset[frozenset[str]]:
    """Tell one comparison from another: that of DMS with random is that of random with DMS."""
    return frozenset(frozenset(record.run_id for record in records) for records in (group.records, rivals))


def _difference(group: _Group, rivals: Sequence[Record]) -> Difference | None:
    return difference(_by_seed(group.records), _by_seed(rivals))


def _at(row: Row) -> tuple[bool, str]:
    return row.kind in UNCUT, row.budget


def _lettered(members: Sequence[Row]) -> list[Row]:
    """Give the rows of one budget their letters; the uncut supernet is no rival."""
    if members[0].kind in UNCUT:
        return list(members)
    letters, pairs = grouped([row.values for row in members])
    return [replace(row, letters=own, pairs=pairs) for row, own in zip(members, letters, strict=True)]


def _groups(records: Sequence[Record], tuned: bool) -> list[_Group]:
    """Part one method's trials into rows."""
    varied = varied_settings(records)
    tuned_settings = [name for name in varied if tuned and name.startswith(_OWN_SETTINGS)]
    fixed_settings = [name for name in varied if name not in tuned_settings]
    parts: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        parts[(_budget(record), *_values(record, fixed_settings))].append(record)
    groups = []
    for part in parts.values():
        candidates: dict[tuple[str, ...], list[Record]] = defaultdict(list)
        for record in part:
            candidates[_values(record, tuned_settings)].append(record)
        chosen = part if len(candidates) == 1 else _best(list(candidates.values()))
        groups.append(_Group(chosen, tuple(varied), frozenset(varied), len(candidates)))
    return groups


def _best(candidates: Sequence[list[Record]]) -> list[Record]:
    """Return the trials of the setting with the best mean on the validation split; the test split has no say.

    Only settings with as many finished seeds as any are considered: a mean over fewer may be luck.

    Raises:
        UserError: none has a value on the validation split.
    """
    first = candidates[0][0]
    sign = 1 if _higher_is_better(first) else -1
    measured = [(_validation(records), records) for records in candidates]
    seeds = max(validation.n for validation, _ in measured)
    if seeds == 0:
        raise UserError(
            f"{_name(first)} at {_budget(first)} was run with {len(candidates)} settings, and none has a finished "
            "trial with a value on the validation split to choose by"
        )
    return max(
        ((sign * (validation.mean or 0.0), records) for validation, records in measured if validation.n == seeds),
        key=lambda pair: pair[0],
    )[1]


def _validation(records: Sequence[Record]) -> Estimate:
    finished = (record for record in records if record.status == names.FINISHED)
    return estimate([value for record in finished if (value := record.validation) is not None and math.isfinite(value)])


def _rivals(ours: _Group, groups: Sequence[_Group], kind: str) -> list[Record]:
    """Return the trials of another method that ours are paired with; none where its setting would be a choice."""
    if ours.kind in (kind, *UNCUT):
        return []
    theirs = [group for group in groups if group.kind == kind]
    varied = ours.varied.union(*(group.varied for group in theirs))
    matching = _matching([record for group in theirs for record in group.records], ours.records[0], varied)
    several = matching and any(name.startswith(_OWN_SETTINGS) for name in varied_settings(matching))
    return [] if several else matching


def varied_settings(records: Sequence[Record]) -> list[str]:
    """Return the dotted fields in which trials of one method differ, apart from seed and budget."""
    settings = {name for record in records for name in record.params}
    same = set(records[0].params.items()).intersection(*(record.params.items() for record in records))
    return sorted(name for name in settings - dict(same).keys() if not name.startswith(_NOT_A_SETTING))


def _matching(controls: Iterable[Record], ours: Record, settings: Iterable[str]) -> list[Record]:
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


def _row(group: _Group, controls: Sequence[Record], dms: Sequence[Record]) -> Row:
    records = group.records
    first = records[0]
    tags = first.tags
    finished = [record for record in records if record.status == names.FINISHED]
    values = _by_seed(finished)
    measured, ratio = estimate(list(values.values())), _latency_ratio(finished)
    delta, delta_dms = (paired_difference(values, _by_seed(rivals)) for rivals in (controls, dms))
    statuses = [record.status for record in records]
    unit = first.unit(tags[names.METRIC])
    return Row(
        task=tags[names.TASK],
        model=tags[names.MODEL],
        budget=_budget(first),
        method=_label(first, group.shown),
        metric=tags[names.METRIC],
        mean=measured.mean,
        ci95=measured.ci95,
        n=measured.n,
        macs=_mean(finished, "macs"),
        params=_mean(finished, "params"),
        latency_ms=_mean(finished, "latency_ms"),
        search_device_days=_mean(finished, "search_device_days"),
        device=_distinct(finished, names.DEVICE),
        delta_random=delta.mean,
        delta_random_ci95=delta.ci95,
        failed=statuses.count(names.FAILED),
        stopped=statuses.count(names.STOPPED),
        unfinished=statuses.count(names.RUNNING),
        budget_missed=sum(record.metrics.get("budget_missed", 0) > 0 for record in finished),
        delta_n=delta.n,
        public_device_days=_mean(finished, "public_device_days"),
        device_kind=_distinct(finished, names.DEVICE_KIND),
        suite=first.edition,
        experiment=tags[names.EXPERIMENT],
        pipeline=tags[names.PIPELINE],
        kind=tags[names.METHOD],
        supernet_macs=_mean(finished, "supernet_macs"),
        supernet_params=_mean(finished, "supernet_params"),
        supernet_latency_ms=_mean(finished, "supernet_latency_ms"),
        latency_runtime=_distinct(finished, names.LATENCY_RUNTIME),
        latency_ratio=ratio.mean,
        latency_ratio_ci95=ratio.ci95,
        higher_is_better=_higher_is_better(first),
        unit=unit.symbol,
        decimals=unit.decimals,
        delta_dms=delta_dms.mean,
        delta_dms_ci95=delta_dms.ci95,
        delta_dms_n=delta_dms.n,
        validation=_validation(records).mean,
        settings_tried=group.tried,
        search_load=estimate([load for record in finished if (load := record.search_load) is not None]).mean,
        weights=first.weights,
        uses=tags.get(names.USES, ""),
        search_samples=_mean(finished, "search_samples"),
        search_training_macs=_mean(finished, "search_training_macs"),
        search_processor_seconds=_mean(finished, "search_processor_seconds"),
        delta_random_p=None,
        delta_random_half=None,
        delta_dms_p=None,
        delta_dms_half=None,
        comparisons=0,
        letters="",
        pairs=0,
        budget_order=-math.inf if tags[names.METHOD] in UNCUT else float(tags.get(names.BUDGET_ORDER, "inf")),
        values=values,
        failed_trials=tuple(sorted(record.name for record in records if record.status == names.FAILED)),
        environment=_environment(records),
    )


def _budget(record: Record) -> str:
    return "-" if record.tags[names.METHOD] in UNCUT else record.tags[names.BUDGET]


def _name(record: Record) -> str:
    """Return the method's label, which says what of its settings makes it another method."""
    return record.tags.get(names.METHOD_LABEL, record.tags[names.METHOD])


def _higher_is_better(record: Record) -> bool:
    return record.tags.get(names.HIGHER_IS_BETTER, "true") == "true"


def _values(record: Record, settings: Iterable[str]) -> tuple[str, ...]:
    return tuple(record.params.get(name, "-") for name in settings)


def _label(record: Record, settings: Sequence[str]) -> str:
    values = zip(settings, _values(record, settings), strict=True)
    shown = ", ".join(f"{name.removeprefix('method.')}={value}" for name, value in values)
    return f"{_name(record)} ({shown})" if shown else _name(record)


def _by_seed(records: Iterable[Record]) -> dict[int, float]:
    """Return the measure of each seed; the supernet may have been trained once per budget: their mean."""
    values: dict[int, list[float]] = defaultdict(list)
    for record in records:
        if record.status == names.FINISHED and record.value is not None:
            values[record.seed].append(record.value)
    return {seed: math.fsum(several) / len(several) for seed, several in values.items()}


def _latency_ratio(records: Sequence[Record]) -> Estimate:
    timed = [(record.metrics.get("latency_ms"), record.metrics.get("supernet_latency_ms")) for record in records]
    return estimate([own / whole for own, whole in timed if own is not None and whole])


def _mean(records: Sequence[Record], metric: str) -> float | None:
    return estimate([record.metrics[metric] for record in records if metric in record.metrics]).mean


def _distinct(records: Sequence[Record], tag: str) -> str:
    return " / ".join(sorted({record.tags[tag] for record in records if record.tags.get(tag)}))


def _environment(records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    distinct: dict[str, set[str]] = defaultdict(set)
    for different in {record.tags.get(names.ENVIRONMENT): record for record in records}.values():
        for name, value in different.environment.items():
            distinct[name].add(value)
    return {name: tuple(sorted(values)) for name, values in sorted(distinct.items())}


def _order(row: Row) -> tuple[object, ...]:
    """The supernet, then budgets from small to large; in each the best first, failures last."""
    mean = math.inf if row.mean is None else (-row.mean if row.higher_is_better else row.mean)
    return (row.budget_order, row.budget, math.isnan(mean), 0.0 if math.isnan(mean) else mean, row.method)
