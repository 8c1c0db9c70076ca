"""Comparisons as a terminal table, Markdown, CSV or one HTML page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dms_bench.errors import UserError, nearest
from dms_bench.report.format import MISSING
from dms_bench.report.html import page
from dms_bench.report.paper import cells
from dms_bench.report.paper.compare import Comparison

FORMATS = ("table", "markdown", "csv", "html")


def render_comparisons(comparisons: Sequence[Comparison], format: str = "table") -> RenderableType:
    """Render tables; every format but `table` (a rich renderable) is a plain string.

    Args:
        comparisons: the tables, in their order.
        format: `table`, `markdown`, `csv` or `html`.

    Raises:
        UserError: unknown format.
    """
    if format == "table":
        return Group(*[part for comparison in comparisons for part in _terminal(comparison)])
    if format == "markdown":
        return "\n\n".join(map(_markdown, comparisons)) + "\n"
    if format == "csv":
        return _csv(comparisons)
    if format == "html":
        sections = [f"<section>{section}</section>" for section in map(html_section, comparisons)]
        return page("Published and ours", "The tables of the paper beside our own trials", sections)
    raise UserError(f"unknown format {format!r}; {nearest(format, FORMATS)}")


def _terminal(comparison: Comparison) -> list[RenderableType]:
    heading = Text(cells.title(comparison), style="bold")
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, column in enumerate(cells.columns(comparison, full=False)):
        table.add_column(column, justify="right" if index else "left", header_style="bold")
    for line in comparison.lines:
        style = "dim" if line.row.later else ""
        table.add_row(*[Text(cell, style=style) for cell in cells.cells(comparison, line, full=False)])
    return [table, *map(Text, cells.notes(comparison)), Text()]


def _markdown(comparison: Comparison) -> str:
    headings = cells.columns(comparison, full=True)
    lines = [f"### {cells.title(comparison)}", "", _row(headings)]
    lines.append(
        _row(
            ["---" if index in (0, len(headings) - 2, len(headings) - 1) else "---:" for index in range(len(headings))]
        )
    )
    lines += [_row([_escape(cell) for cell in cells.cells(comparison, line, full=True)]) for line in comparison.lines]
    notes = [*cells.notes(comparison), *cells.remarks(comparison)]
    lines += ["", *[f"- {_escape(note.removeprefix('- '))}" for note in notes]]
    return "\n".join(lines)


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def _csv(comparisons: Sequence[Comparison]) -> str:
    records = [cells.record(comparison, line) for comparison in comparisons for line in comparison.lines]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _number(value) for name, value in record.items()} for record in records)
    return text.getvalue()


def _number(value: object) -> object:
    return "" if value is None else repr(value) if isinstance(value, float) else value


def html_section(comparison: Comparison) -> str:
    """Return one table with its verdicts and remarks as HTML."""
    headings = cells.columns(comparison, full=True)
    words = {0, len(headings) - 2, len(headings) - 1}
    head = "".join(f"<th{_class(index, words)}>{escape(column)}</th>" for index, column in enumerate(headings))
    body = []
    for line in comparison.lines:
        texts = cells.cells(comparison, line, full=True)
        texts[-1] = texts[-1] if texts[-1] == MISSING else f"{len(texts[-1].split())}: {texts[-1]}"
        columns = "".join(f"<td{_class(index, words)}>{escape(text)}</td>" for index, text in enumerate(texts))
        kind = "later" if line.row.later else "control" if line.row.control else ""
        body.append(f'<tr class="{kind}">{columns}</tr>')
    verdicts = "".join(f"<li>{escape(note.removeprefix('- '))}</li>" for note in cells.notes(comparison))
    remarks = "".join(f"<li>{escape(note)}</li>" for note in cells.remarks(comparison))
    return (
        f"<h2>{escape(cells.title(comparison))}</h2>"
        f'<div class="scroll"><table class="paper"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
        f'<ul class="notes">{verdicts}</ul>'
        f'<details><summary>Setting, sources, remarks</summary><ul class="notes">{remarks}</ul></details>'
    )


def _class(index: int, words: set[int]) -> str:
    return "" if index in words else ' class="number"'
