"""Where commands write to."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from dms_bench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from dms_bench.config import Suite

#: Width of tables that no terminal limits, in characters.
_WIDTH = 160

Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", show_default=False)]


def console(file: TextIO | None = None) -> Console:
    """Return a console that does not squeeze tables where no terminal limits them."""
    from rich.console import Console

    limited = (file or sys.stdout).isatty() or "COLUMNS" in os.environ
    return Console(file=file, width=None if limited else _WIDTH, highlight=False)


def count_of(suite: Suite) -> str:
    """Return how many trials a suite has: `12`, or `9 to 60` where comparisons choose their number of seeds."""
    from dms_bench.config import most_trials, trial_count

    least, most = trial_count(suite), most_trials(suite)
    return str(least) if most == least else f"{least} to {most}"


def columns(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a plain table: of thousands of rows, which rich takes many seconds to draw."""
    cells = [list(headings), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["─" * width for width in widths]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (cells[0], rule, *cells[1:])
    )


def write(content: RenderableType, output: Path | None) -> None:
    """Write text, or anything that rich can draw, to a file or to the standard output.

    Raises:
        UserError: the file cannot be written.
    """
    if output is None and not isinstance(content, str):
        console().print(content)
        return
    if not isinstance(content, str):
        text = io.StringIO()
        console(text).print(content)
        content = text.getvalue()
    content = content.rstrip("\n") + "\n"
    if output is None:
        sys.stdout.write(content)
        return
    try:
        output.write_text(content)
    except OSError as error:
        raise UserError(f"{output}: {error.strerror or error}") from None
    typer.echo(f"wrote {output}")
