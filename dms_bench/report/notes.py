"""What a board says of its comparisons: how many are corrected for, what is told apart, and what cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from dms_bench.report import format as fmt
from dms_bench.report.board import UNCUT, Row
from dms_bench.report.letters import FEWEST_SEEDS
from dms_bench.report.statistics import LEVEL

_PERCENT = f"{100 * LEVEL:g} %"


def lettered(rows: Sequence[Row]) -> bool:
    """Whether methods of one table are told apart at any of its budgets, so that letters say something."""
    return any(len(_letters(members)) > 1 for members in _budgets(rows))


def comparison_notes(rows: Sequence[Row]) -> list[str]:
    """Return the footnotes on the differences and the letters of a board."""
    notes = []
    if any(row.delta_random is not None for row in rows):
        notes.append("Δ random: mean difference to random architectures at the same budget, paired by seed.")
    if any(row.delta_dms is not None for row in rows):
        notes.append("Δ dms: the same, to DMS.")
    tables = [list(members) for _, members in groupby(rows, key=_table)]
    sizes = sorted({members[0].comparisons for members in tables} - {0})
    if sizes:
        notes.append(
            f"± of Δ: 95 % for all {_range(sizes, 'comparison')} of a table at once (Bonferroni). "
            f"*: told apart, with a false claim in at most {_PERCENT} of tables (Holm; sharper than these ±)."
        )
    return [*notes, *_letter_notes(tables)]


def _letter_notes(tables: Sequence[Sequence[Row]]) -> list[str]:
    notes = []
    if any(map(lettered, tables)):
        pairs = sorted({row.pairs for rows in tables if lettered(rows) for row in rows} - {0})
        notes.append(
            f"group: methods at one budget that share a letter are not told apart ({_range(pairs, 'pair')}, paired by "
            f"seed, Holm at {_PERCENT}); -: fewer than {FEWEST_SEEDS} seeds in common with any other."
        )
    budgets = [members for rows in tables for members in _budgets(rows) if len(members) > 1]
    alike = sum(1 for members in budgets if members[0].pairs and len(_letters(members)) == 1)
    if alike:
        notes.append(f"No two methods are told apart at {alike} of {fmt.number_of(len(budgets), 'budget')}.")
    short = sum(1 for members in budgets if not members[0].pairs)
    if short:
        notes.append(
            f"Whether other pairs of methods differ is not asked at {short} of "
            f"{fmt.number_of(len(budgets), 'budget')}: they have fewer than {FEWEST_SEEDS} seeds in common."
        )
    return notes


def _table(row: Row) -> tuple[str, ...]:
    return (row.suite, row.experiment, row.task, row.model, row.pipeline, row.weights)


def _budgets(rows: Sequence[Row]) -> list[list[Row]]:
    methods = (row for row in rows if row.kind not in UNCUT)
    return [list(members) for _, members in groupby(methods, key=lambda row: (*_table(row), row.budget))]


def _letters(members: Sequence[Row]) -> set[str]:
    """Return the different letters of a budget, without that of methods with too few seeds."""
    return {row.letters for row in members} - {""}


def _range(numbers: Sequence[int], noun: str) -> str:
    return fmt.number_of(numbers[0], noun) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]} {noun}s"
