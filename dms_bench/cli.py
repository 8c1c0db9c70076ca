"""The command line: thin, and quick to start, as each command imports what it needs when it runs.

Exit codes: 0 all is well, 1 a trial failed or the run was interrupted, 2 the user must change something.
"""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer
from typer.exceptions import TyperException

from dms_bench import __version__
from dms_bench.errors import TrialFailure, UserError, nearest

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="dms-bench",
    help="Benchmark differentiable model scaling: search architectures, retrain them, compare them.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

#: Width of tables that no terminal limits, in characters.
_WIDTH = 160
#: What typer makes of Ctrl-C.
_INTERRUPTED = 130


SuiteFile = Annotated[Path, typer.Argument(metavar="SUITE", help="A suite file (YAML).", show_default=False)]
Smoke = Annotated[bool, typer.Option("--smoke", help="Lay the suite's `smoke` section over every experiment.")]
Tracking = Annotated[str, typer.Option(help="MLflow tracking URI.", envvar="MLFLOW_TRACKING_URI")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", show_default=False)]

_TRACKING = "sqlite:///mlflow.db"


def main() -> None:
    """Run the command line, and turn what the user can mend into a line without a traceback."""
    sys.exit(_main())


def _main(arguments: list[str] | None = None) -> int:
    try:
        code = app(args=arguments, prog_name="dms-bench", standalone_mode=False) or 0
    except UserError as error:
        return _error(str(error), 2)
    except TyperException as error:
        return _error(error.format_message(), 2)
    except TrialFailure as error:
        return _error(str(error), 1)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    return _error("interrupted", 1) if code == _INTERRUPTED else int(code)


def _error(message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return code


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False
) -> None:
    if version:
        typer.echo(f"dms-bench {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def validate(suites: Annotated[list[Path], typer.Argument(metavar="SUITE...", help="Suite files.")]) -> None:
    """Check suite files, their smoke variants included, and count their trials."""
    from dms_bench.spec import load_suite, trial_count

    wrong = []
    for path in suites:
        try:
            suite = load_suite(path)
        except UserError as error:
            wrong.append(str(error))
        else:
            typer.echo(f"{path}: valid, {trial_count(suite)} trials in {len(suite.experiments)} experiments")
    if wrong:
        raise UserError("\n".join(wrong))


@app.command()
def plan(suite: SuiteFile, smoke: Smoke = False) -> None:
    """Show the trials of a suite, and how much training they are, without running anything."""
    from rich import box
    from rich.table import Table

    from dms_bench.runtime.plan import plan, total_macs
    from dms_bench.spec import load_suite

    planned = plan(load_suite(suite, smoke=smoke))
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("experiment", "method", "budget", "pipeline", "seed", "hash", "stages (epochs x MACs x samples)"):
        table.add_column(heading, no_wrap=heading != "stages (epochs x MACs x samples)")
    table.add_column("training MACs", justify="right")
    for trial in planned:
        stages = ", ".join(
            f"{stage.stage} {stage.epochs} x {stage.macs:.3g} x {stage.samples}" for stage in trial.stages
        )
        name = trial.hash or f"{trial.count} samples"
        identity = (trial.experiment, trial.method, trial.budget, trial.pipeline, str(trial.seed), name)
        table.add_row(*identity, stages, f"{trial.training_macs:.2e}")
    console = _console()
    console.print(table)
    trials = sum(trial.count for trial in planned)
    console.print(
        f"{trials} trials, about {total_macs(planned):.2e} MACs of training (3 x forward MACs x samples x epochs)"
    )


@app.command()
def run(
    suite: SuiteFile,
    smoke: Smoke = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the suite's earlier results first.")] = False,
) -> int:
    """Run what is left of a suite; the same command goes on where an interrupted one stopped."""
    from dms_bench.runtime.run import run_suite
    from dms_bench.spec import load_suite

    return run_suite(load_suite(suite, smoke=smoke), fresh=fresh)


@app.command()
def ls(
    what: Annotated[
        str | None, typer.Argument(help="tasks, methods or suites; all of them by default.", show_default=False)
    ] = None,
) -> None:
    """List the tasks and methods that are installed, and the suites in `benchmarks/`."""
    from rich import box
    from rich.table import Table

    from dms_bench.catalogue import LISTINGS

    if what is not None and what not in LISTINGS:
        raise UserError(f"there is nothing called {what!r} to list; {nearest(what, LISTINGS)}")
    console = _console()
    for listing in [what] if what else LISTINGS:
        table = Table(box=box.SIMPLE_HEAD, title=listing, title_justify="left")
        headings, rows = LISTINGS[listing]()
        for heading in headings:
            table.add_column(heading)
        for row in rows:
            table.add_row(*row)
        console.print(table)


@app.command()
def schema(output: Output = None) -> None:
    """Write the JSON Schema of suite files, for completion and checks in editors."""
    from dms_bench.spec import suite_schema

    _write(json.dumps(suite_schema(), indent=2) + "\n", output)


@app.command()
def leaderboard(
    suite: Annotated[str | None, typer.Option(help="Only this suite (its name).", show_default=False)] = None,
    format: Annotated[str, typer.Option("--format", "-f", help="table, markdown, csv or html.")] = "table",
    output: Output = None,
    tracking: Tracking = _TRACKING,
) -> None:
    """Compare methods: metric, interval, cost, and difference to random architectures."""
    from dms_bench.report import leaderboard, render

    title = f"Leaderboard: {suite}" if suite else "Leaderboard"
    rendered = render(leaderboard(tracking, suite), format, title)
    if isinstance(rendered, str):
        _write(rendered.rstrip("\n") + "\n", output)
    elif output is None:
        _console().print(rendered)
    else:
        text = io.StringIO()
        _console(text).print(rendered)
        _write(text.getvalue(), output)


@app.command()
def show(
    trial: Annotated[str, typer.Argument(help="A trial's name, or the beginning of its hash.", show_default=False)],
    tracking: Tracking = _TRACKING,
) -> None:
    """Show one trial: specification, results, cost of each stage, artifacts, error."""
    from dms_bench.report import show

    _console().print(show(tracking, trial))


def _console(file: TextIO | None = None) -> Console:
    """Return a console that does not squeeze tables where no terminal limits them."""
    from rich.console import Console

    limited = (file or sys.stdout).isatty() or "COLUMNS" in os.environ
    return Console(file=file, width=None if limited else _WIDTH, highlight=False)


def _write(text: str, output: Path | None) -> None:
    """Write to a file, or to the standard output.

    Raises:
        UserError: the file cannot be written.
    """
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise UserError(f"{output}: {error.strerror or error}") from None
    typer.echo(f"wrote {output}")
