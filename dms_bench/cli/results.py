"""Commands on results: compare them, look at one, take its network away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dms_bench.cli.asked import OnlyRows
from dms_bench.cli.output import Output, write
from dms_bench.errors import UserError

Trial = Annotated[
    str,
    typer.Argument(metavar="TRIAL", help="A trial's name or hash, or the beginning of one.", show_default=False),
]
Suite = Annotated[str | None, typer.Option(help="Only this suite (its name).", show_default=False)]
Tracking = Annotated[str, typer.Option(help="MLflow tracking URI.", envvar="MLFLOW_TRACKING_URI")]
#: The same as `dms_bench.report.render.Format`, which would take long to import.
Format = Literal["table", "markdown", "csv", "html"]
SummaryFormat = Literal["table", "markdown", "csv", "json", "html"]

#: The same as `dms_bench.deploy.table.Format`.
CompareFormat = Literal["table", "markdown", "csv"]

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
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder to write into; needed without --compare.", show_default=False
        ),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx, too, checked by ONNX Runtime.")] = False,
    openvino: Annotated[
        bool, typer.Option("--openvino", help="Write model.xml and model.bin, too, checked by OpenVINO.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Write model.int8.onnx, too: 8 bits, calibrated on training pictures.")
    ] = False,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Compare fp32 and int8 in PyTorch, ONNX Runtime, OpenVINO: accuracy, latency."),
    ] = False,
    format: Annotated[
        CompareFormat, typer.Option("--format", "-f", help="How to write the comparison, with --compare.")
    ] = "table",
    suite: Suite = None,
    tracking: Tracking = STORE,
) -> None:
    """Write a finished trial's network into a folder: for `dms_bench.load(folder)`, torch alone, other runtimes."""
    from tempfile import TemporaryDirectory

    if output is None and not compare:
        raise UserError("Missing option '--output' / '-o'.")

    from dms_bench.deploy.export import Forms, export
    from dms_bench.deploy.table import render

    forms = Forms(onnx=onnx, openvino=openvino, int8=int8, compare=compare)
    with TemporaryDirectory() as nowhere:
        exported = export(tracking, trial, output or nowhere, suite, forms=forms)
    for note in exported.notes:
        typer.echo(note, err=True)
    for file in exported.files if output else ():
        said = f" ({file.about})" if file.about else ""
        typer.echo(f"wrote {file.path}{said}", err=compare)  # what is compared goes to the standard output, alone
    if exported.comparison is not None:
        write(render(exported.comparison, format), None)
