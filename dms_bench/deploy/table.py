"""A comparison of one network's forms as a terminal table, Markdown or CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import fields
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dms_bench.deploy.compare import Comparison, Row
from dms_bench.report import format as fmt
from dms_bench.report.render import markdown_line, markdown_text

Format = Literal["table", "markdown", "csv"]
_COLUMNS = ("precision", "runtime", "top-1 [%]", "latency", "against PyTorch", "file", "")


def render(comparison: Comparison, format: Format = "table") -> RenderableType:
    """Return the rows with what they were measured on; every format but `table` is a plain string."""
    if format == "csv":
        return _csv(comparison)
    if format == "markdown":
        lines = [markdown_line(_COLUMNS), markdown_line(["---", "---", *["---:"] * 4, "---"])]
        lines += [markdown_line([markdown_text(cell) for cell in _cells(row)]) for row in comparison.rows]
        return "\n".join([*lines, "", *(f"- {note}" for note in notes(comparison))]) + "\n"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, column in enumerate(_COLUMNS):
        table.add_column(Text(column), justify="right" if 2 <= index <= 5 else "left", header_style="bold")
    for row in comparison.rows:
        if row.precision == "int8" and row.runtime == comparison.rows[0].runtime:
            table.add_section()
        table.add_row(*map(Text, _cells(row)))
    return Group(table, *(Text(note, style="dim") for note in notes(comparison)))


def notes(comparison: Comparison) -> list[str]:
    """Return what the figures were measured on, a line each."""
    versions = ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
    return [
        f"top-1 on {comparison.pictures} samples of the test split; int8 is calibrated with "
        f"{comparison.calibration} samples of the training split.",
        f"Latency of one sample on one thread of {comparison.device}: medians of {comparison.rounds} rounds in which "
        "all take turns. OpenVINO is compiled for one sample.",
        f"Versions: {versions}.",
    ]


def _cells(row: Row) -> list[str]:
    return [
        row.precision,
        row.runtime,
        fmt.measure(row.top1, None, 1),
        fmt.milliseconds(row.latency_ms),
        fmt.MISSING if row.ratio is None else f"{row.ratio:.2f} x",
        fmt.MISSING if row.size is None else f"{row.size / 1e6:.2f} MB",
        row.note,
    ]


def _csv(comparison: Comparison) -> str:
    """Return every field of the rows in full, and on how many samples and rounds they were measured."""
    columns = [field.name for field in fields(Row)]
    about = {"pictures": comparison.pictures, "calibration": comparison.calibration, "rounds": comparison.rounds}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *about])
    for row in comparison.rows:
        values = [getattr(row, column) for column in columns]
        writer.writerow(["" if value is None else value for value in values] + list(about.values()))
    return text.getvalue()
