"""What a leaderboard shows, apart from how: blocks, cells and footnotes, shared by all formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from dms_bench.report import format as fmt
from dms_bench.report.board import Row

COLUMNS = ("budget", "method", "{metric}", "n", "MACs", "params", "latency", "search", "Δ random")
_SHOWN_FAILURES = 5


@dataclass(frozen=True)
class Line:
    """One row as text, a cell per column."""

    cells: tuple[str, ...]
    #: The best mean of its budget.
    best: bool
    #: The first line of its budget.
    opens: bool
    row: Row


@dataclass(frozen=True)
class Block:
    """The rows that compare with one another: one task, model and pipeline."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def rows(self) -> list[Row]:
        """The block's rows."""
        return [line.row for line in self.lines]


def blocks(rows: Sequence[Row]) -> list[Block]:
    """Group rows, in their order, into comparable blocks."""
    several = len({row.suite for row in rows}) > 1
    found = []
    for _, members in groupby(rows, key=lambda row: (row.suite, row.experiment, row.task, row.model, row.pipeline)):
        block = list(members)
        first = block[0]
        experiment = f"{first.suite}/{first.experiment}" if several else first.experiment
        lines = [line for _, budget in groupby(block, key=lambda row: row.budget) for line in _lines(list(budget))]
        columns = tuple(column.format(metric=fmt.heading(first.metric)) for column in COLUMNS)
        found.append(Block(f"{experiment}: {first.task}, {first.model}, {first.pipeline}", columns, tuple(lines)))
    return found


def footnotes(rows: Sequence[Row]) -> list[str]:
    """Explain how to read the board, and the marks that occur in it."""
    notes = ["± is the 95 % interval (Student's t) over n seeds; the best mean of each budget is set in bold."]
    if any(row.delta_random is not None for row in rows):
        notes.append("Δ random: mean difference to random architectures at the same budget, paired by seed.")
    if any(row.kind == "supernet" for row in rows):
        notes.append("supernet: not cut, the ceiling for every budget.")
    if any(row.n == 1 for row in rows):
        notes.append("n = 1: a single seed, no interval.")
    if any(row.budget_missed for row in rows):
        notes.append("† k/n: k of n networks cost more than 1 % more or less than the budget.")
    failed = [name for row in rows for name in row.failed_trials]
    if failed:
        listed = ", ".join(failed[:_SHOWN_FAILURES]) + (", ..." if len(failed) > _SHOWN_FAILURES else "")
        notes.append(f"✗ k: k trials failed and are in no mean ({listed}); `dms-bench show NAME` gives the reason.")
    if any(row.stopped for row in rows):
        notes.append("■ k: k trials were stopped early by the scheduler and are in no mean.")
    if any(row.unfinished for row in rows):
        notes.append("… k: k trials are not finished; the same command goes on with them.")
    devices = sorted({row.device for row in rows if row.device})
    if devices:
        notes.append(f"Latency and cost on: {'; '.join(devices)}.")
    return notes


def _lines(rows: Sequence[Row]) -> list[Line]:
    means = [row.mean for row in rows if row.mean is not None and row.mean == row.mean]
    best = (max if rows[0].higher_is_better else min)(means) if len(means) > 1 else None
    return [
        Line(_cells(row, index == 0), row.mean == best and best is not None, index == 0, row)
        for index, row in enumerate(rows)
    ]


def _cells(row: Row, opens: bool) -> tuple[str, ...]:
    return (
        row.budget if opens else "",
        row.method + _marks(row),
        fmt.measure(row.metric, row.mean, row.ci95),
        str(row.n),
        fmt.count(row.macs),
        fmt.count(row.params),
        fmt.milliseconds(row.latency_ms),
        fmt.cost(row.search_device_days, row.device_kind),
        fmt.measure(row.metric, row.delta_random, row.delta_random_ci95, signed=True),
    )


def _marks(row: Row) -> str:
    marks = (
        (row.budget_missed, f" † {row.budget_missed}/{row.n}"),
        (row.failed, f" ✗ {row.failed}"),
        (row.stopped, f" ■ {row.stopped}"),
        (row.unfinished, f" … {row.unfinished}"),
    )
    return "".join(text for happened, text in marks if happened)
