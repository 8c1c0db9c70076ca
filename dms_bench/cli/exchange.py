"""`dms-bench results`: a store's trials as a file, and the trials of a file in a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dms_bench.cli.results import STORE, Suite, Tracking

results = typer.Typer(help="Write trials into a file, and take up the trials of others' files.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="Named .csv or .parquet.", show_default=False)]


@results.command("export")
def export_results(file: File, suite: Suite = None, tracking: Tracking = STORE) -> None:
    """Write a row per trial: identity, seed, measures on each split, size, costs, environment, all options."""
    from dms_bench.report.records import read_records
    from dms_bench.tracking import names
    from dms_bench.tracking.rows import row_of, write_rows

    records = read_records(tracking, suite)
    ended = [record for record in records if record.status != names.RUNNING]
    write_rows([row_of(record) for record in ended], file)
    running = len(records) - len(ended)
    typer.echo(f"wrote {file}: {len(ended)} trials" + (f"; {running} not finished are left out" if running else ""))


@results.command("import")
def import_results(file: File, tracking: Tracking = STORE) -> None:
    """Take up the trials of a file that this store does not have; `run` goes on from there.

    Their curves, weights and pictures stay where they were trained.
    """
    from dms_bench.tracking.importing import take_up
    from dms_bench.tracking.rows import records_in

    done = take_up(tracking, records_in(file), file.name)
    for suite, number in done.taken.items():
        typer.echo(f"suite {suite}: {number} trial{'s' * (number != 1)} taken up")
    if done.known:
        typer.echo(f"{done.known} were there already")
    if done.differing:
        named = ", ".join(done.differing[:3]) + (", ..." if len(done.differing) > 3 else "")
        typer.echo(f"{len(done.differing)} were there already with another result, which stays: {named}")
