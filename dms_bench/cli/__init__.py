"""The command line: thin, and quick to start, as each command imports what it needs when it runs.

Exit codes: 0 all is well, 1 a trial failed or the run was interrupted, 2 the user must change something.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from dms_bench import __version__
from dms_bench.cli import begin, data, machine, networks, papers, rehearsing, results, suites
from dms_bench.cli.exchange import results as exchange
from dms_bench.errors import TrialFailure, UserError

app = typer.Typer(
    name="dms-bench",
    help="Benchmark differentiable model scaling: search architectures, retrain them, compare them.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

#: What typer makes of Ctrl-C.
_INTERRUPTED = 130

#: New objects between two collections of garbage. Python's 700 cost a fifth of the time in which torch is imported,
#: whose objects all stay.
_GARBAGE = 100_000

for command in (
    begin.new,
    *(suites.validate, suites.plan, rehearsing.rehearse, suites.run, suites.submit, suites.ls, suites.schema),
    *(results.leaderboard, results.summary, results.pareto, results.show, results.export),
    networks.space,
    machine.doctor,
    *(papers.table, papers.figure, papers.report),
):
    app.command()(command)
app.add_typer(exchange, name="results")
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line, and turn what the user can put right into a line without a traceback."""
    gc.set_threshold(_GARBAGE)
    code = _main()
    if "ray" in sys.modules:  # has processes of its own to end
        sys.exit(code)
    # As mypy does: to take torch's objects apart one by one takes a second, of which nobody has anything.
    os._exit(code)


def _main(arguments: list[str] | None = None) -> int:
    try:
        code = app(args=arguments, prog_name="dms-bench", standalone_mode=False) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _error(f"{error.strerror}: what was to be written is not complete", 2)
    except UserError as error:
        return _error(str(error), 2)
    except TyperException as error:
        return _error(error.format_message().replace("Value error, ", ""), 2)
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
