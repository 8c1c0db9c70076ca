"""The paper's figures, drawn from its published points and our trials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dms_bench.config.published import Figure, Published, WidthsFigure
from dms_bench.errors import UserError
from dms_bench.report.paper.compare import Comparison
from dms_bench.report.paper.scatter import draw_scatter
from dms_bench.report.paper.widths import draw_widths, read_network

_FORMATS = ("png", "svg")


def draw(figure: Figure, comparisons: Sequence[Comparison], uri: str) -> Any:
    """Return a figure (matplotlib's).

    Args:
        figure: what to draw.
        comparisons: the tables that it draws.
        uri: tracking URI, where architectures are read from.

    Raises:
        UserError: it draws networks of ours, and they have not been trained.
    """
    if not isinstance(figure, WidthsFigure):
        return draw_scatter(comparisons, f"Figure {figure.number}: {figure.title}")
    (comparison,) = comparisons
    networks = []
    for name in (figure.searched, figure.designed):
        row = comparison.table.row(name)
        records = next(
            (line.measured.records for line in comparison.lines if line.row.id == name and line.measured), ()
        )
        if not records:
            raise UserError(f"figure {figure.number} needs a finished trial of {row.name}; run: {comparison.command}")
        record = min(records, key=lambda trial: trial.seed)
        task = "" if comparison.profile == "full" else f", proxy on {comparison.task}"
        networks.append(read_network(uri, record, f"{row.name}{task}, seed {record.seed}"))
    searched, designed = networks
    return draw_widths(searched, designed, f"Figure {figure.number}: {figure.title}")


def drawable(published: Published, comparisons: Sequence[Comparison], uri: str) -> list[tuple[str, Any]]:
    """Return the figures that can be drawn from some tables, with their captions."""
    by_number = {comparison.table.number: comparison for comparison in comparisons}
    drawings = []
    for figure in published.figures:
        numbers = [figure.table] if isinstance(figure, WidthsFigure) else figure.tables
        if not all(number in by_number for number in numbers):
            continue
        try:
            drawn = draw(figure, [by_number[number] for number in numbers], uri)
        except UserError:  # its trials have not finished; the tables say so
            continue
        drawings.append((f"Figure {figure.number}: {figure.title}", drawn))
    return drawings


def save(figure: Any, path: Path) -> list[Path]:
    """Write a figure as PNG and SVG, named `path` and the suffix.

    Raises:
        UserError: a file cannot be written.
    """
    files = [path.with_name(f"{path.name}.{suffix}") for suffix in _FORMATS]
    for file in files:
        try:
            figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
        except OSError as error:
            raise UserError(f"{file}: {error.strerror or error}") from None
    return files
