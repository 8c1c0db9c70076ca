"""The command that rehearses a suite, and what it shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from dms_bench.cli.asked import Only, Set, SiteFile, say_site
from dms_bench.cli.measured import duration, projected, size
from dms_bench.cli.output import Output, console, write
from dms_bench.cli.suites import Profile, Smoke, SuiteFile

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from dms_bench.trial.rehearsal.record import Rehearsed


def rehearse(
    suite: SuiteFile,
    profile: Profile = None,
    smoke: Smoke = False,
    set_: Set = None,
    only: Only = None,
    site: SiteFile = None,
    steps: Annotated[
        int, typer.Option(min=1, max=1000, help="Steps of every stage that are measured, after one that warms up.")
    ] = 2,
    device: Annotated[
        str | None,
        typer.Option(help="An accelerator, such as A100-40GB, that the suite is to fit on.", show_default=False),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many devices the suite gets; those that are here unless given.", show_default=False
        ),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Folder for checkpoints and results, instead of the suite's.", show_default=False)
    ] = None,
    output: Output = None,
) -> int:
    """Do a few steps of every stage of every kind of trial: what a suite takes, and what of it will not run."""
    from rich.console import Group

    from dms_bench.config import load_suite, read_request
    from dms_bench.runtime.rehearse import rehearse_suite
    from dms_bench.trial.rehearsal.findings import memory_of

    if device is not None:
        memory_of(device)
    request = read_request(set_, only, site, here=True)
    loaded = load_suite(suite, profile=profile, smoke=smoke, request=request)
    say_site(request)
    if storage is not None:
        loaded = loaded.model_copy(update={"storage": storage})
    variant = "-".join([*([profile] if profile else []), *(["smoke"] if smoke else [])]) or None
    outcome = rehearse_suite(loaded, variant, steps, device, devices, console())
    lines = [*projected(outcome), *map(str, outcome.findings)]
    shown = [_steps(outcome.rehearsal.kinds), _trials(outcome.rehearsal.kinds)] if outcome.rehearsal.kinds else []
    write(Group(*shown, *map(_plain, lines)), output)
    return 2 if any(finding.fatal for finding in outcome.findings) else 0


def _plain(line: str) -> Text:
    """Return a line that no table's width breaks."""
    from rich.text import Text

    return Text(line, no_wrap=True, overflow="ignore")


def _table(title: str, *headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 2 else "right", overflow="fold")
    return table


def _steps(kinds: Iterable[Rehearsed]) -> Table:
    """Return what a step of each stage takes, and how much memory."""
    table = _table(
        "Steps",
        *("kind of trial", "stage", "step", "of it waiting", "needed/s", "had/s", "memory", "on device"),
        *("checkpoint", "written in", "all-reduce"),
    )
    for kind in kinds:
        name = kind.name
        for stage in kind.stages:
            one = stage.training
            if one is None and not stage.calls:
                continue
            checkpoint = max(stage.calls, key=lambda call: call.checkpoint_bytes, default=None)
            written = checkpoint.checkpoint_seconds if checkpoint and checkpoint.checkpoint_bytes else None
            collective = next((call.collective for call in stage.calls if call.collective is not None), None)
            table.add_row(
                name,
                stage.name,
                duration(one.step if one else None),
                duration(one.wait if one else None),
                _rate(one.needed if one else None),
                _rate(one.had if one else None),
                size(stage.host_bytes),
                size(stage.device_bytes),
                size(stage.checkpoint_bytes),
                duration(written),
                duration(collective),
            )
            name = ""
    return table


def _trials(kinds: Iterable[Rehearsed]) -> Table:
    """Return what one trial of each kind takes."""
    table = _table(
        "Trials, each", "kind of trial", "stages", "trials", "time", "what they share", "devices", "kept on disk"
    )
    for kind in kinds:
        if kind.failure is not None:
            table.add_row(kind.name, f"failed in {kind.at or 'the beginning'}", str(kind.trials))
            continue
        stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in kind.by_stage("trial").items())
        shared = kind.seconds("supernet") + kind.seconds("search")
        devices = kind.devices * kind.workers_for_one
        table.add_row(
            kind.name,
            stages,
            str(kind.trials),
            duration(kind.seconds("trial")),
            duration(shared or None),
            f"{devices:g} {kind.kind.upper()}",
            size(kind.kept_bytes.get("trial", 0)),
        )
    return table


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.3g}" if rate < 1000 else f"{rate:,.0f}"
