"""A leaderboard as a terminal table, Markdown, CSV or one HTML page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from typing import Literal

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from dms_bench.errors import UserError, nearest
from dms_bench.report.board import Row
from dms_bench.report.html import render_html
from dms_bench.report.layout import Block, blocks, footnotes

Format = Literal["table", "markdown", "csv", "html"]
_RIGHT_FROM = 2  # budget and method are words, the rest numbers


def render(
    rows: Sequence[Row],
    format: str = "table",
    title: str = "Leaderboard",
    *,
    costs: bool = False,
    decided: Sequence[str] = (),
) -> RenderableType:
    """Render rows; every format but `table` (a rich renderable) is a plain string.

    Args:
        rows: the leaderboard, in its order.
        format: `table`, `markdown`, `csv` or `html`.
        title: heading of the HTML page.
        costs: show what searches use and compute (`layout.blocks`); CSV and HTML have both.
        decided: further notes: which comparisons were decided, and after how many seeds (`decided_notes`).

    Raises:
        UserError: unknown format.
    """
    if format == "table":
        return render_table(rows, costs=costs, decided=decided)
    if format == "markdown":
        return render_markdown(rows, costs=costs, decided=decided)
    if format == "csv":
        return render_csv(rows)
    if format == "html":
        return render_html(rows, title, decided)
    raise UserError(f"unknown format {format!r}; {nearest(format, ('table', 'markdown', 'csv', 'html'))}")


def render_table(rows: Sequence[Row], *, costs: bool = False, decided: Sequence[str] = ()) -> Group:
    """Return a rich table per block, with the footnotes."""
    parts: list[RenderableType] = []
    for block in blocks(rows, costs=costs):
        parts += [_Fitted(block), Text()]
    parts += [Text(note, style="dim") for note in (*footnotes(rows, costs=costs), *decided)]
    return Group(*parts)


class _Fitted:
    """A block's table, with the columns that the terminal has room for."""

    def __init__(self, block: Block) -> None:
        self.block = block

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table; called by rich, which knows the width."""
        block = self.block.fitted(options.max_width)
        yield _rich_table(block)
        if block.left_out:
            yield Text(f"Left out for want of room: {', '.join(block.left_out)} (`--format html` has all).", "dim")


def _rich_table(block: Block) -> Table:
    title = Text(block.title, style="bold")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, column in enumerate(block.columns):
        words = index < _RIGHT_FROM
        table.add_column(  # text, as rich would take the unit in `error [mm]` for markup
            Text(column), justify="left" if words else "right", no_wrap=index != 1, overflow="fold", header_style="bold"
        )
    for index, line in enumerate(block.lines):
        if line.opens and index:
            table.add_section()
        cells = [
            Text(cell, style="bold" if line.best and column in (1, 2) else "") for column, cell in enumerate(line.cells)
        ]
        table.add_row(*cells)
    return table


def render_markdown(rows: Sequence[Row], *, costs: bool = False, decided: Sequence[str] = ()) -> str:
    """Return a Markdown table per block, with the footnotes."""
    parts = []
    for block in blocks(rows, costs=costs):
        lines = [f"### {markdown_text(block.title)}", "", markdown_line(block.columns)]
        lines.append(markdown_line(["---" if index < _RIGHT_FROM else "---:" for index in range(len(block.columns))]))
        for line in block.lines:
            cells = [markdown_text(cell) for cell in line.cells]
            if line.best:
                cells[1], cells[2] = f"**{cells[1]}**", f"**{cells[2]}**"
            lines.append(markdown_line(cells))
        parts.append("\n".join(lines))
    parts.append("\n".join(f"- {note}" for note in (*footnotes(rows, costs=costs), *decided)))
    return "\n\n".join(parts) + "\n"


def markdown_line(cells: Sequence[str]) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def markdown_text(text: str) -> str:
    """Return text in which nothing is taken for Markdown."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def render_csv(rows: Sequence[Row]) -> str:
    """Return every field of the rows in full precision, but for those that are no single value."""
    columns = [
        field.name
        for field in fields(Row)
        if field.name not in ("budget_order", "values", "failed_trials", "environment")
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(getattr(row, column)) for column in columns] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    return "" if value is None else repr(value) if isinstance(value, float) else value
