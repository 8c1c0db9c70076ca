"""Commands on results: compare them, look at one, take its network away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dms_bench.cli.asked import OnlyRows
from dms_bench.cli.output import Output, write

Trial = Annotated[
    str,
    typer.Argument(metavar="TRIAL", help="A trial's name or hash, or the beginning of one.", show_default=False),
]
Suite = Annotated[str | None, typer.Option(help="Only this suite (its name).", show_default=False)]
Tracking = Annotated[str, typer.Option(help="MLflow tracking URI.", envvar="MLFLOW_TRACKING_URI")]
#: The same as `dms_bench.report.render.Format`, which would take long to import.
Format = Literal["table", "markdown", "csv", "html"]
SummaryFormat = Literal["table", "markdown", "csv", "json", "html"]

#: Where results are, unless one says otherwise.
STORE = "sqlite:///mlflow.db"


def leaderboard(
    suite: Suite = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to write it.")] = "table",
    tuned: Annotated[
        bool,
        typer.Option("--tuned", help="Show one setting of each method: the best on the validation split, over seeds."),
    ] = False,
    costs: Annotated[
        bool,
        typer.Option("--costs", help="Show what each search uses and computes, not the networks' size and speed."),
    ] = False,
    only: OnlyRows = None,
    output: Output = None,
    tracking: Tracking = STORE,
) -> None:
    """Compare methods: metric, interval, cost, and paired differences to random architectures and to DMS."""
    from dms_bench.config import read_selection
    from dms_bench.report import decided_notes, leaderboard, render

    title = f"Leaderboard: {suite}" if suite else "Leaderboard"
    rows = leaderboard(tracking, suite, tuned=tuned, only=read_selection(only or ()))
    decided = decided_notes(tracking, dict.fromkeys(row.suite for row in rows))
    write(render(rows, format, title, costs=costs, decided=decided), output)


def summary(
    suite: Suite = None,
    format: Annotated[SummaryFormat, typer.Option("--format", "-f", help="How to write it.")] = "table",
    tuned: Annotated[
        bool,
        typer.Option("--tuned", help="Take one setting of each method: the best on the validation split, over seeds."),
    ] = False,
    score: Annotated[
        Literal["relative", "gap"],
        typer.Option(help="relative: a share of the supernet's measure. gap: 0 is random networks, 1 the supernet."),
    ] = "relative",
    plots: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write every figure into this folder, as SVG.", show_default=False),
    ] = None,
    output: Output = None,
    tracking: Tracking = STORE,
) -> None:
    """Compare methods over all experiments and budgets: ranks, means, chances, profiles, areas, anytime curves."""
    from dms_bench.report import leaderboard
    from dms_bench.report.summary import summarise
    from dms_bench.report.summary.render import render_summary, save_figures

    found = summarise(leaderboard(tracking, suite, tuned=tuned), score)
    write(render_summary(found, format, f"Summary: {suite}" if suite else "Summary"), output)
    for path in save_figures(found, plots) if plots else ():
        typer.echo(f"wrote {path}", err=True)


def pareto(
    suite: Annotated[str, typer.Option(help="The suite's name.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write OUTPUT.png and OUTPUT.svg; by default pareto-SUITE.", show_default=False
        ),
    ] = None,
    tuned: Annotated[
        bool,
        typer.Option("--tuned", help="Show one setting of each method: the best on the validation split, over seeds."),
    ] = False,
    tracking: Tracking = STORE,
) -> None:
    """Draw what each method loses against what its search computes, as PNG and SVG."""
    from dms_bench.report import leaderboard
    from dms_bench.report.paper.figures import save
    from dms_bench.report.pareto import draw_pareto

    figure = draw_pareto(leaderboard(tracking, suite, tuned=tuned), f"Suite {suite}: lost against computed")
    for path in save(figure, output or Path(f"pareto-{suite}")):
        typer.echo(f"wrote {path}")


def show(trial: Trial, suite: Suite = None, tracking: Tracking = STORE) -> None:
    """Show one trial: specification, results, cost of each stage, artifacts, error."""
    from dms_bench.report import show

    write(show(tracking, trial, suite), None)


def export(
    trial: Trial,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write into.", show_default=False)
    ],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx, too, checked by ONNX Runtime.")] = False,
    suite: Suite = None,
    tracking: Tracking = STORE,
) -> None:
    """Write a finished trial's network into a folder, which `dms_bench.load(folder)` reads."""
    from dms_bench.trial.export import export

    for path in export(tracking, trial, output, suite, onnx=onnx):
        typer.echo(f"wrote {path}")
