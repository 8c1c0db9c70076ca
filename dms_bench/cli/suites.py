"""Commands on suite files: check, plan, run and submit them; list what they can name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dms_bench.cli.asked import Only, Set, SiteFile, say_site, say_tracking
from dms_bench.cli.output import Output, columns, console, count_of, write
from dms_bench.errors import UserError, nearest

SuiteFile = Annotated[Path, typer.Argument(metavar="SUITE", help="A suite file (YAML).", show_default=False)]
Smoke = Annotated[bool, typer.Option("--smoke", help="Lay the suite's `smoke` section over every experiment.")]
Profile = Annotated[
    str | None, typer.Option(help="Lay this one of the suite's `profiles` over it.", show_default=False)
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget the results of the suite's trials first.")]


def validate(
    suites: Annotated[list[Path], typer.Argument(metavar="SUITE...", help="Suite files.")],
    profile: Profile = None,
    set_: Set = None,
    only: Only = None,
    site: SiteFile = None,
) -> None:
    """Check suite files, their profiles and smoke variants included, and count their trials."""
    from dms_bench.config import load_suite, profile_names, read_request

    request, wrong = read_request(set_, only, site, here=True), []
    for path in suites:
        try:
            suite = load_suite(path, profile=profile, request=request)
            others = profile_names(path) if profile is None else ()
            profiles = {name: count_of(load_suite(path, profile=name, request=request)) for name in others}
        except UserError as error:
            wrong.append(str(error))
        else:
            profile_counts = "".join(f"; profile {name}: {count}" for name, count in profiles.items())
            trials, experiments = count_of(suite), len(suite.experiments)
            typer.echo(
                f"{path}: valid, {trials} trial{'s' * (trials != '1')} in {experiments} "
                f"experiment{'s' * (experiments != 1)}{profile_counts}"
            )
    if wrong:
        raise UserError("\n".join(wrong))


def plan(
    suite: SuiteFile,
    profile: Profile = None,
    smoke: Smoke = False,
    set_: Set = None,
    only: Only = None,
    site: SiteFile = None,
    effect: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Where comparisons choose their number of seeds: the difference whose power is shown; twice the "
            "margin unless given.",
            show_default=False,
        ),
    ] = None,
    deviation: Annotated[
        float | None,
        typer.Option(
            min=1e-9,
            help="The standard deviation of a paired difference over seeds to go with it; the margin unless given.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show the trials of a suite, and how much training they are, without running anything."""
    from dms_bench.cli.measured import measured_lines, time_of
    from dms_bench.config import families, load_suite, read_request
    from dms_bench.trial.plan import cost_lines, plan, plan_added, total_macs
    from dms_bench.trial.rehearsal.store import known
    from dms_bench.trial.storage import SuiteFolder

    request = read_request(set_, only, site, here=True)
    loaded = load_suite(suite, profile=profile, smoke=smoke, request=request)
    say_site(request)
    deciding = families(loaded)
    if not deciding and (effect is not None or deviation is not None):
        raise UserError("--effect and --deviation are for suites whose seed is {until: decided}")
    planned = plan(loaded)
    measured = known(SuiteFolder.of(loaded.storage, loaded.name))
    costly = loaded.resources.gpus > 0
    headings = ("experiment", "method", "budget", "pipeline", "seed", "hash", "stages (epochs x MACs x samples)")
    rows = []
    for trial in planned:
        stages = ", ".join(
            f"{stage.stage} {stage.epochs} x {stage.macs:.3g} x {stage.samples}"
            + (f" (taught by {stage.teacher_macs:.3g})" if stage.teacher_macs else "")
            for stage in trial.stages
        )
        name = trial.hash or f"{trial.count} samples"
        identity = (trial.experiment, trial.method, trial.budget, trial.pipeline, str(trial.seed), name)
        estimates = ", ".join(f"{stage.stage} {stage.gpu_days:.3g}" for stage in trial.stages)
        took = [time_of(trial.trial, measured)] if measured else []
        rows.append((*identity, stages, f"{trial.training_macs:.2e}", *([estimates] if costly else []), *took))
    more = [*(["A100 days"] if costly else []), *(["time of a trial"] if measured else [])]
    write(columns((*headings, "training MACs", *more), rows), None)
    for line in (*cost_lines(planned, costly), *measured_lines(loaded, measured)):
        typer.echo(line)
    if deciding:
        from dms_bench.trial.prospects import prospects

        added, trials = plan_added(loaded), sum(trial.count for trial in planned)
        typer.echo(
            f"that is the least; at most {trials + len(added)} trials and {total_macs([*planned, *added]):.2e} MACs, "
            "as seeds are added until the comparisons are decided"
        )
        for family in deciding:
            typer.echo(prospects(family, effect, deviation))


def run(
    suite: SuiteFile,
    profile: Profile = None,
    smoke: Smoke = False,
    set_: Set = None,
    only: Only = None,
    site: SiteFile = None,
    fresh: Fresh = False,
    storage: Annotated[
        str | None, typer.Option(help="Folder for checkpoints and results, instead of the suite's.", show_default=False)
    ] = None,
    tracking: Annotated[
        str | None,
        typer.Option(help="MLflow tracking URI, instead of $MLFLOW_TRACKING_URI and the suite's.", show_default=False),
    ] = None,
) -> int:
    """Run what is left of a suite; the same command goes on where an interrupted one stopped."""
    from dms_bench.config import load_suite, read_request
    from dms_bench.runtime.run import run_suite

    elsewhere = {name: value for name, value in (("storage", storage), ("tracking", tracking)) if value is not None}
    request = read_request(set_, only, site, here=True)
    loaded = load_suite(suite, profile=profile, smoke=smoke, request=request).model_copy(update=elsewhere)
    say_site(request)
    say_tracking(request, loaded.tracking)
    return run_suite(loaded, fresh=fresh)


def submit(
    suite: SuiteFile,
    address: Annotated[
        str, typer.Option(help="The dashboard of a Ray cluster.", envvar="RAY_API_SERVER_ADDRESS")
    ] = "http://127.0.0.1:8265",
    profile: Profile = None,
    smoke: Smoke = False,
    set_: Set = None,
    only: Only = None,
    site: SiteFile = None,
    fresh: Fresh = False,
    patience: Annotated[
        float,
        typer.Option(min=0, help="Minutes to wait for a cluster that is lost; then the suite is submitted again."),
    ] = 10.0,
) -> int:
    """Run a suite as a job on a Ray cluster; follows its log and ends with its exit code."""
    from dms_bench.config import read_request
    from dms_bench.runtime.submit import is_local, submit

    # Elsewhere a job takes the site file of the machine that it runs on.
    request = read_request(set_, only, site, here=is_local(address))
    return submit(suite, address, profile=profile, smoke=smoke, request=request, fresh=fresh, patience=60 * patience)


def ls(
    what: Annotated[
        str | None, typer.Argument(help="tasks, methods or suites; all of them by default.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="A task or method, to show its options and an example.", show_default=False)
    ] = None,
) -> None:
    """List installed tasks and methods and the suites in `benchmarks/`, or the options of one task or method."""
    from rich import box
    from rich.table import Table

    from dms_bench.cli.catalogue import LISTINGS, SUITES, options

    if what is not None and what not in LISTINGS and f"{what}s" not in LISTINGS:
        raise UserError(f"there is nothing called {what!r} to list; {nearest(what, LISTINGS)}")
    listed = what if what in LISTINGS or what is None else f"{what}s"
    if listed is not None and name is not None:
        console().print(options(listed, name))
        return
    for listing in [listed] if listed else LISTINGS:
        table = Table(box=box.SIMPLE_HEAD, title=listing, title_justify="left")
        headings, rows = LISTINGS[listing]()
        if not rows:
            where = f" in {SUITES}/ of this folder" if listing == "suites" else " installed"
            typer.echo(f"There are no {listing}{where}.")
            continue
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*row)
        console().print(table)


def schema(output: Output = None) -> None:
    """Write the JSON Schema of suite files, for completion and checks in editors."""
    from dms_bench.config import suite_schema

    write(json.dumps(suite_schema(), indent=2), output)
