"""Commands on the paper: its tables and figures beside our own trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dms_bench.cli.output import Output, write
from dms_bench.cli.results import Format, Tracking
from dms_bench.errors import UserError

if TYPE_CHECKING:
    from dms_bench.config.published import Published
    from dms_bench.report.paper import Comparison

_TRACKING = "sqlite:///mlflow.db"
#: Published figures, relative to the working folder; the suites are beside them.
_PUBLISHED = Path("benchmarks/paper/published.yaml")

PublishedFile = Annotated[Path, typer.Option("--published", help="File of published figures.")]
Profile = Annotated[
    Literal["proxy", "full"] | None,
    typer.Option(
        help="proxy: the question at small scale. full: the published setting. By default full where it was run.",
        show_default=False,
    ),
]


def table(
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="NUMBER...", help="Tables of the paper.", show_default=False)
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    profile: Profile = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to write it.")] = "table",
    output: Output = None,
    published: PublishedFile = _PUBLISHED,
    tracking: Tracking = _TRACKING,
) -> None:
    """Show the paper's tables beside ours: figures, differences, cost, and whether the claim is reproduced."""
    from dms_bench.report.paper import render_comparisons

    if bool(numbers) == all:
        raise UserError("name tables by their numbers, or give --all")
    paper = _paper(published)
    table_numbers = (
        [published_table.number for published_table in paper.tables] if all else list(dict.fromkeys(numbers or ()))
    )
    comparisons = _comparisons(paper, table_numbers, profile, tracking, published.parent)
    write(render_comparisons(comparisons, format), output)


def _paper(published: Path) -> Published:
    from dms_bench.config.published import load_published

    if published == _PUBLISHED and not published.exists():
        raise UserError(
            f"{published}: no such file; run this in a clone of dms_bench, or name the file with --published"
        )
    return load_published(published)


def _comparisons(
    paper: Published, numbers: list[int], profile: str | None, tracking: str, folder: Path
) -> list[Comparison]:
    from dms_bench.report.paper import compare
    from dms_bench.report.paper.compare import choose_profile, suite_of
    from dms_bench.report.records import read_suites, suites_in

    tracked = suites_in(tracking)
    tables = [paper.table(number) for number in numbers]
    chosen = [choose_profile(published_table, profile, tracked) for published_table in tables]
    suites = {
        suite_of(published_table, table_profile) for published_table, table_profile in zip(tables, chosen, strict=True)
    }
    records = read_suites(tracking, suites & set(tracked))
    return [
        compare(paper, published_table, table_profile, records, str(folder))
        for published_table, table_profile in zip(tables, chosen, strict=True)
    ]


def figure(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="Figure of the paper.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write OUTPUT.png and OUTPUT.svg; by default figureNUMBER.", show_default=False
        ),
    ] = None,
    profile: Profile = None,
    published: PublishedFile = _PUBLISHED,
    tracking: Tracking = _TRACKING,
) -> None:
    """Draw one of the paper's figures from its published points and our trials, as PNG and SVG."""
    from dms_bench.config.published import ScatterFigure
    from dms_bench.report.paper.figures import draw, save

    paper = _paper(published)
    published_figure = paper.figure(number)
    tables = list(published_figure.tables) if isinstance(published_figure, ScatterFigure) else [published_figure.table]
    comparisons = _comparisons(paper, tables, profile, tracking, published.parent)
    for path in save(draw(published_figure, comparisons, tracking), output or Path(f"figure{number}")):
        typer.echo(f"wrote {path}")


def report(
    suite: Annotated[str, typer.Option(help="The suite's name.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Write this HTML file.", show_default=False)],
    published: PublishedFile = _PUBLISHED,
    tracking: Tracking = _TRACKING,
) -> None:
    """Write one page on a suite: tables, figures, architectures, costs, and every trial with its run and commit."""
    from dms_bench.config.published import load_published
    from dms_bench.report.paper.compare import compare, profile_of
    from dms_bench.report.paper.figures import drawable
    from dms_bench.report.records import read_records
    from dms_bench.report.suite_page import suite_page

    records = read_records(tracking, suite)
    comparisons, figures = [], []
    if published.exists():
        paper = load_published(published)
        comparisons = [
            compare(paper, published_table, profile, records, str(published.parent))
            for published_table in paper.tables
            if (profile := profile_of(published_table, suite)) is not None
        ]
        figures = drawable(paper, comparisons, tracking)
    write(suite_page(tracking, suite, records, comparisons, figures), output)
