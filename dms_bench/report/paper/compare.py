"""A published table beside our trials: lines, differences, verdicts, rank correlation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dms_bench.config.published import Measure, Paper, Published, PublishedRow, PublishedTable, Tolerance
from dms_bench.errors import UserError, nearest
from dms_bench.report.paper.judge import Outcome, Verdict, judge, together
from dms_bench.report.paper.measured import Measured, select
from dms_bench.report.records import Record
from dms_bench.report.statistics import Estimate
from dms_bench.tracking import names

Profile = Literal["proxy", "full"]
#: Fewer rows than this have an order by chance too often.
_FEWEST_RANKED = 4


class Correlation(NamedTuple):
    """How well the order of our rows agrees with the published one: Kendall's tau over `n` rows."""

    tau: float
    n: int


@dataclass(frozen=True)
class ComparisonLine:
    """One measure of one row."""

    row: PublishedRow
    measure: Measure
    #: None for rows that we quote and do not run.
    measured: Measured | None
    tolerance: Tolerance | None
    #: Whether our figures are of the published task, and may be compared with the published ones.
    comparable: bool

    @property
    def published(self) -> float | None:
        """The printed figure."""
        value: float | None = getattr(self.row, self.measure.field)
        return value

    @property
    def ours(self) -> Estimate:
        """Our mean, interval and number of seeds."""
        return self.measured.estimate(self.measure) if self.measured else Estimate(None, None, 0)

    @property
    def missing(self) -> bool:
        """Whether we run this row, and have no finished trial of it."""
        return self.measured is not None and not self.measured.records

    @property
    def difference(self) -> float | None:
        """Ours less the published one; None where they are not of one task."""
        mean, published = self.ours.mean, self.published
        return mean - published if self.comparable and mean is not None and published is not None else None

    @property
    def within(self) -> bool | None:
        """Whether the difference is within the row's tolerance; None where there is none."""
        difference = self.difference
        return None if difference is None or self.tolerance is None else abs(difference) <= self.tolerance.points


@dataclass(frozen=True)
class Comparison:
    """One table."""

    paper: Paper
    table: PublishedTable
    profile: Profile
    #: Name of the suite that answers it in this profile.
    suite: str
    #: What makes the trials.
    command: str
    #: What our trials were trained on, as the leaderboard prints it; empty without trials.
    task: str
    lines: tuple[ComparisonLine, ...]
    #: On the claim's rules, and on what it leaves open.
    verdicts: tuple[Verdict, ...]
    doubts: tuple[Verdict, ...]
    correlation: Correlation | None

    @property
    def outcome(self) -> Outcome:
        """The verdict on the claim."""
        return together([verdict.outcome for verdict in self.verdicts])

    @property
    def missing(self) -> list[str]:
        """Names of the rows without a finished trial."""
        return list(dict.fromkeys(line.row.name for line in self.lines if line.missing))

    @property
    def commits(self) -> list[str]:
        """The commits that our trials ran from."""
        return sorted({commit for line in self.lines if line.measured for commit in line.measured.commits})


def suite_of(table: PublishedTable, profile: Profile) -> str:
    """Return the suite that answers a table; the proxy is the file as it stands."""
    return table.suite if profile == "proxy" else f"{table.suite}-{profile}"


def profile_of(table: PublishedTable, suite: str) -> Profile | None:
    """Return in which profile a suite answers a table; None where it does not."""
    profiles: tuple[Profile, ...] = ("proxy", "full")
    return next((profile for profile in profiles if suite_of(table, profile) == suite), None)


def compare(
    published: Published,
    table: PublishedTable,
    profile: Profile,
    records: Sequence[Record],
    folder: str = "benchmarks/paper",
) -> Comparison:
    """Lay our trials beside a published table.

    Args:
        published: the paper.
        table: one of its tables.
        profile: `proxy` for the same question asked at small scale, `full` for the published setting.
        records: trials of the suite, any others are left out.
        folder: where the suites are.

    Raises:
        UserError: a row's selector fits several settings.
    """
    suite = suite_of(table, profile)
    ours = [record for record in records if record.suite == suite]
    newest = max((record.version for record in ours), default=1)
    ours = [record for record in ours if record.version == newest]
    where = f"table {table.number}, "
    table = table.in_proxy() if profile == "proxy" else table
    rows = {row.id: select(ours, row.ours, where + row.id) if row.ours is not None else None for row in table.rows}
    measured = {name: trials for name, trials in rows.items() if trials is not None}
    tolerances = published.tolerances
    lines = tuple(
        ComparisonLine(
            row, measure, rows[row.id], tolerances[row.tolerance] if row.tolerance else None, profile == "full"
        )
        for row in table.rows
        for measure in table.measures
    )
    option = "" if profile == "proxy" else f" --profile {profile}"
    return Comparison(
        paper=published.paper,
        table=table,
        profile=profile,
        suite=suite,
        command=f"dms-bench run {folder}/{table.suite}.yaml{option}",
        task=" / ".join(sorted({record.tags[names.TASK] for record in ours})),
        lines=lines,
        verdicts=judge(table.rules, table, measured),
        doubts=judge(table.doubts, table, measured),
        correlation=_correlation([line for line in lines if line.measure == table.measures[0]]),
    )


def _correlation(lines: Sequence[ComparisonLine]) -> Correlation | None:
    """Compare the order of the rows that the paper and we both have a figure for."""
    pairs = [
        (line.published, line.ours.mean)
        for line in lines
        if line.published is not None and line.ours.mean is not None and not line.row.later
    ]
    if len(pairs) < _FEWEST_RANKED:
        return None
    from scipy.stats import kendalltau

    tau = float(kendalltau(*zip(*pairs, strict=True)).statistic)
    return Correlation(tau, len(pairs)) if tau == tau else None  # all equal: no order


def choose_profile(table: PublishedTable, requested: str | None, suites: Collection[str]) -> Profile:
    """Return the profile to show: the one asked for, else the published setting where it has been run.

    Raises:
        UserError: there is no such profile.
    """
    if requested is None:
        return "full" if suite_of(table, "full") in suites else "proxy"
    if requested == "full":
        return "full"
    if requested == "proxy":
        return "proxy"
    raise UserError(f"profile {requested!r} is not a choice; {nearest(requested, ('proxy', 'full'))}")
