"""What a leaderboard shows, apart from how: blocks, cells and footnotes, shared by all formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from dms_bench.report import format as fmt
from dms_bench.report.board import CEILING, CONTROL, Row
from dms_bench.report.notes import comparison_notes, lettered
from dms_bench.report.statistics import LEVEL

_SHOWN_FAILURES = 5
#: A search that ended this far above its target has not reached it.
_SHORT = 0.05
#: What a narrow terminal can do without, in this order.
_LEAVE_OUT = ("latency", "params", "MACs", "public", "search", "search MACs")
#: Longer names of methods are folded.
_NAME_WIDTH = 16
#: Blank characters between two columns of a terminal's table, and around them all.
_GAP, _EDGES = 2, 2


@dataclass(frozen=True)
class LeaderboardLine:
    """One row as text, a cell per column."""

    cells: tuple[str, ...]
    #: The best mean of its budget.
    best: bool
    #: The first line of its budget.
    opens: bool
    row: Row


@dataclass(frozen=True)
class Block:
    """The rows that compare with one another: one task, model (with its weights) and pipeline."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[LeaderboardLine, ...]
    #: Columns that were left out for want of room.
    left_out: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """The block's rows."""
        return [line.row for line in self.lines]

    @property
    def width(self) -> int:
        """Characters of the longest line, long names of methods folded."""
        texts = zip(self.columns, *(line.cells for line in self.lines), strict=True)
        widths = [max(map(len, column)) for column in texts]
        widths[1] = min(widths[1], _NAME_WIDTH)
        return sum(widths) + _GAP * (len(self.columns) - 1) + _EDGES

    def fitted(self, width: int) -> Block:
        """Return the block without columns that can be done without, where it is wider than `width` characters."""
        block = self
        for column in _LEAVE_OUT:
            if block.width <= width:
                break
            if column not in block.columns:
                continue
            index = block.columns.index(column)
            block = replace(
                block,
                columns=_without(block.columns, index),
                lines=tuple(replace(line, cells=_without(line.cells, index)) for line in block.lines),
                left_out=(*block.left_out, column),
            )
        return block


def blocks(rows: Sequence[Row], *, costs: bool = False) -> list[Block]:
    """Group rows, in their order, into comparable blocks.

    Args:
        rows: of a leaderboard.
        costs: show what each search uses and what it computed in place of the network's size and speed, the methods of
            a budget grouped by what they use.
    """
    several = len({row.suite for row in rows}) > 1
    comparable_blocks = []
    for _, comparable in groupby(rows, key=_identity):
        block = list(comparable)
        first = block[0]
        experiment = f"{first.suite}/{first.experiment}" if several else first.experiment
        columns = _cost_columns(block) if costs else _columns(block)
        budgets = [list(members) for _, members in groupby(block, key=lambda row: row.budget)]
        if costs:
            budgets = [sorted(members, key=_by_use) for members in budgets]
        lines = tuple(line for members in budgets for line in _lines(members, columns))
        headings = ("budget", *(column.heading for column in columns))
        weights = f", weights {first.weights}" if first.weights else ""
        comparable_blocks.append(
            Block(f"{experiment}: {first.task}, {first.model}, {first.pipeline}{weights}", headings, lines)
        )
    return comparable_blocks


def _identity(row: Row) -> tuple[str, ...]:
    return (row.suite, row.experiment, row.task, row.model, row.pipeline, row.weights)


def footnotes(rows: Sequence[Row], *, costs: bool = False) -> list[str]:
    """Explain how to read the board, and the marks that occur in it; `costs` as of `blocks`."""
    notes = ["± is the 95 % interval (Student's t) over n seeds; the best mean of each budget is set in bold."]
    if not costs:
        notes += comparison_notes(rows)
    tried = {(row.kind, row.settings_tried) for row in rows if row.kind not in (CONTROL, CEILING)}
    most = max((settings for _, settings in tried), default=1)
    if most > 1:
        fewer = ", ".join(sorted({kind for kind, settings in tried if settings < most}))
        unequal = f" Given fewer: {fewer}." if fewer else ""
        notes.append(f"tried: settings of the method; shown is the best on the validation split over seeds.{unequal}")
    if any(row.search_training_macs is not None for row in rows):
        notes.append(
            f"search MACs{', samples' * costs}: what the search ran networks on, per searched network; gradients count "
            "as two more passes, or one where no weight is trained."
        )
    if costs:
        notes.append(
            "processors: how long they worked for the search. wall: the trial's processors (or GPUs) times wall time, "
            "which grows when others use the machine."
        )
    elif any(row.search_training_macs is None and row.search_device_days is not None for row in rows):
        notes.append("search: devices times wall time of each searched network's search.")
    if not costs and any(row.public_device_days for row in rows):
        notes.append("public: devices times wall time of what is trained once for many networks (pretraining).")
    eager = not any(row.latency_runtime for row in rows)
    if any(row.latency_ratio is not None and row.kind != CEILING for row in rows):
        where = "" if eager else ", in the runtime that the budget names"
        notes.append(
            f"latency: of one sample{where}, as a multiple (x) of the supernet's, which took turns with it; ≈: seeds "
            "do not tell it from the supernet's. The CSV has milliseconds and intervals."
        )
    if any(row.kind == CEILING for row in rows):
        notes.append("supernet: not cut, the ceiling for every budget.")
    if any(row.kind == "longer" for row in rows):
        notes.append("longer: not cut either, and trained for the epochs of search and retraining together.")
    if any(row.kind == "resolution" for row in rows):
        notes.append(
            "resolution: not cut, but trained and measured on smaller pictures, the largest that meet the budget."
        )
    if any(row.kind == "designed" for row in rows):
        notes.append("designed: another network, not cut, trained by the same recipe.")
    if any("budgets in one" in row.method for row in rows):
        notes.append("budgets in one: one search for all budgets; each network has its share of what that cost.")
    if any(row.n == 1 for row in rows):
        notes.append("n = 1: a single seed, no interval.")
    if any(row.budget_missed for row in rows):
        wide = "" if eager else " (10 %, measured, in a runtime)"
        notes.append(f"† k/n: k of n networks cost more than 1 %{wide} more or less than the budget.")
    if any(map(_fell_short, rows)):
        notes.append("▲ x: the search ended at x times its target; the final cut did the rest, by one factor for all.")
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


@dataclass(frozen=True)
class _Column:
    heading: str
    cell: Callable[[Row], str]


def _columns(rows: Sequence[Row]) -> list[_Column]:
    """Return the columns behind the budget that say anything in a block."""
    columns = [
        _Column("method", lambda row: row.method + _marks(row)),
        _Column(fmt.heading(rows[0].metric, rows[0].unit), lambda row: fmt.measure(row.mean, row.ci95, row.decimals)),
        _Column("n", lambda row: str(row.n)),
    ]
    if lettered(rows):
        columns.append(_Column("group", lambda row: row.letters or fmt.MISSING))
    if any(row.settings_tried > 1 for row in rows):
        columns.append(_Column("tried", lambda row: str(row.settings_tried)))
    columns += [
        _Column("MACs", lambda row: fmt.count(row.macs)),
        _Column("params", lambda row: fmt.count(row.params)),
        _Column("latency", _latency),
        _search_column(rows),
    ]
    if any(row.public_device_days for row in rows):
        columns.append(_Column("public", lambda row: fmt.cost(row.public_device_days, row.device_kind)))
    columns.append(
        _Column("Δ random", lambda row: _difference(row, row.delta_random, row.delta_random_half, row.delta_random_p))
    )
    if any(row.delta_dms is not None for row in rows):
        columns.append(
            _Column("Δ dms", lambda row: _difference(row, row.delta_dms, row.delta_dms_half, row.delta_dms_p))
        )
    return columns


def _latency(row: Row) -> str:
    """Write a latency as a multiple of the whole network's; that one's own, and what was not timed beside it, in ms."""
    if row.latency_ratio is None or row.kind == CEILING:
        return fmt.milliseconds(row.latency_ms)
    same = row.latency_ratio_ci95 is not None and abs(row.latency_ratio - 1) <= row.latency_ratio_ci95
    return f"{'≈ ' if same else ''}{row.latency_ratio:.2f}x"


def _search_column(rows: Sequence[Row]) -> _Column:
    """Return what searches cost: what they computed, which is the same on every machine, or else the time."""
    if any(row.mean is not None and row.search_training_macs is None for row in rows):
        return _Column("search", lambda row: fmt.cost(row.search_device_days, row.device_kind))
    return _Column("search MACs", lambda row: fmt.count(row.search_training_macs))


def _cost_columns(rows: Sequence[Row]) -> list[_Column]:
    """Return the columns behind the budget that say what searches cost."""
    return [
        _Column("method", lambda row: row.method + _marks(row)),
        _Column(fmt.heading(rows[0].metric, rows[0].unit), lambda row: fmt.measure(row.mean, row.ci95, row.decimals)),
        _Column("n", lambda row: str(row.n)),
        _Column("uses", lambda row: row.uses or fmt.MISSING),
        _Column("search MACs", lambda row: fmt.count(row.search_training_macs)),
        _Column("samples", lambda row: fmt.count(row.search_samples)),
        _Column("processors", lambda row: fmt.processor_time(row.search_processor_seconds)),
        _Column("wall", lambda row: fmt.cost(row.search_device_days, row.device_kind)),
    ]


def _by_use(row: Row) -> tuple[bool, int, str]:
    """Order methods by how much their search uses; those that do not say come last."""
    uses = [] if row.uses == "nothing" else row.uses.split(", ")
    return not row.uses, len(uses), row.uses


def _lines(rows: Sequence[Row], columns: Sequence[_Column]) -> list[LeaderboardLine]:
    """Return the lines of one budget."""
    met = [row for row in rows if not row.budget_missed]  # who spends more than the others is not the best of them
    means = [row.mean for row in met if row.mean is not None and row.mean == row.mean]
    best = (max if rows[0].higher_is_better else min)(means) if len(means) > 1 else None
    return [
        LeaderboardLine(
            ("" if index else row.budget, *(column.cell(row) for column in columns)),
            best=row.mean == best and best is not None and not row.budget_missed,
            opens=index == 0,
            row=row,
        )
        for index, row in enumerate(rows)
    ]


def _difference(row: Row, mean: float | None, half: float | None, p: float | None) -> str:
    return fmt.measure(mean, half, row.decimals, signed=True) + ("*" if p is not None and p < LEVEL else "")


def _without(cells: tuple[str, ...], index: int) -> tuple[str, ...]:
    return cells[:index] + cells[index + 1 :]


def _fell_short(row: Row) -> bool:
    """Whether the search had not come down to its target when it ended (an empty cell of table 15)."""
    return row.search_load is not None and row.search_load > 1 + _SHORT


def _marks(row: Row) -> str:
    marks = (
        (row.budget_missed, f" † {row.budget_missed}/{row.n}"),
        (_fell_short(row), f" ▲ {row.search_load or 0:.1f}"),
        (row.failed, f" ✗ {row.failed}"),
        (row.stopped, f" ■ {row.stopped}"),
        (row.unfinished, f" … {row.unfinished}"),
    )
    return "".join(text for happened, text in marks if happened)
