"""A summary as a terminal table, Markdown, CSV, JSON or one HTML page, and its figures as files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dms_bench.errors import UserError, nearest
from dms_bench.report.html import page
from dms_bench.report.render import markdown_line, markdown_text
from dms_bench.report.summary import Section, Summary
from dms_bench.report.summary.plots import standalone

FORMATS = ("table", "markdown", "csv", "json", "html")


def render_summary(summary: Summary, format: str = "table", title: str = "Summary") -> RenderableType:
    """Render a summary; every format but `table` (a rich renderable) is a plain string.

    Args:
        summary: of a board.
        format: `table`, `markdown`, `csv`, `json` or `html`.
        title: heading of Markdown and HTML.

    Raises:
        UserError: unknown format.
    """
    if format == "table":
        return _terminal(summary)
    if format == "markdown":
        return _markdown(summary, title)
    if format == "csv":
        return _csv(summary)
    if format == "json":
        return _json(summary)
    if format == "html":
        return _html(summary, title)
    raise UserError(f"unknown format {format!r}; {nearest(format, FORMATS)}")


def save_figures(summary: Summary, folder: Path) -> list[Path]:
    """Write every figure of a summary as `NAME.svg`, and return the files.

    Raises:
        UserError: the folder cannot be written to.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for section in summary.sections:
            for name, drawing in section.figures.items():
                path = folder / f"{name}.svg"
                path.write_text(standalone(drawing), encoding="utf-8")
                written.append(path)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from None
    return written


def _terminal(summary: Summary) -> Group:
    parts: list[RenderableType] = [Text(summary.lead), Text()]
    for section in summary.sections:
        title = Text(section.title, style="bold")
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for index, column in enumerate(section.columns):
            table.add_column(
                Text(column),
                justify="right" if index else "left",
                no_wrap=index > 0,
                overflow="fold",
                header_style="bold",
            )
        for line in section.lines:
            table.add_row(*map(Text, line))
        parts += [table, *(Text(note, style="dim") for note in section.notes), Text()]
    return Group(*parts, *(Text(note, style="dim") for note in _left_out(summary)))


def _markdown(summary: Summary, title: str) -> str:
    parts = [f"## {markdown_text(title)}", markdown_text(summary.lead)]
    for section in summary.sections:
        lines = [f"### {markdown_text(section.title)}", "", markdown_line(list(map(markdown_text, section.columns)))]
        lines.append(markdown_line(["---:" if index else "---" for index in range(len(section.columns))]))
        lines += [markdown_line(list(map(markdown_text, line))) for line in section.lines]
        parts += ["\n".join(lines), "\n".join(f"- {markdown_text(note)}" for note in section.notes)]
    parts.append("\n".join(f"- {markdown_text(note)}" for note in _left_out(summary)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _csv(summary: Summary) -> str:
    """One number a line, in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["section", "method", "quantity", "value"])
    for section in summary.sections:
        for method, numbers in section.numbers.items():
            for quantity, value in numbers.items():
                shown = "" if value is None else repr(value) if isinstance(value, float) else value
                writer.writerow([section.key, method, quantity, shown])
    return text.getvalue()


def _json(summary: Summary) -> str:
    content = {
        "methods": summary.methods,
        "tasks": summary.tasks,
        "runs": summary.runs,
        "left_out": summary.left_out,
        "sections": {section.key: section.numbers for section in summary.sections},
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _html(summary: Summary, title: str) -> str:
    sections = [_html_section(section) for section in summary.sections]
    notes = _left_out(summary)
    if notes:
        sections.append(f"<section><h2>Left out</h2>{_list(notes)}</section>")
    return page(title, summary.lead, sections)


def _html_section(section: Section) -> str:
    def cells(tag: str, texts: Sequence[str]) -> str:
        number = ' class="number"'
        return "".join(f"<{tag}{number if index else ''}>{escape(text)}</{tag}>" for index, text in enumerate(texts))

    body = "".join(f"<tr>{cells('td', line)}</tr>" for line in section.lines)
    figures = "".join(f"<figure>{drawing}</figure>" for drawing in section.figures.values())
    return (
        f"<section><h2>{escape(section.title)}</h2>{figures}"
        f'<div class="scroll"><table><thead><tr>{cells("th", section.columns)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{_list(section.notes)}</section>"
    )


def _list(notes: Sequence[str]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'


def _left_out(summary: Summary) -> list[str]:
    return [f"Left out: {note}" for note in summary.left_out]
