"""Options that several commands have, by which a suite is run as one wants it, without being edited."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dms_bench.config import Request

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Give a field of every experiment this value (YAML) instead of the suite's, also where it is swept over: "
        "search.epochs=2; of one experiment: NAME:search.epochs=2. May be repeated.",
        show_default=False,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="KEY=PATTERN",
        help="Leave out all trials but those whose experiment, method, budget or seed fits: method=dms, seed=0,1. May "
        "be repeated.",
        show_default=False,
    ),
]
SiteFile = Annotated[
    Path | None,
    typer.Option(
        "--site",
        metavar="FILE",
        help="What belongs to this place (data roots, loader workers, resources, storage, tracking), laid over the "
        "suite; by default dms_bench/site.yaml in $XDG_CONFIG_HOME (~/.config), where there is one.",
        show_default=False,
    ),
]
OnlyRows = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="KEY=PATTERN",
        help="Leave out all rows but those whose experiment, method or budget fits, and all seeds but those given: "
        "method=dms, seed=0,1. May be repeated.",
        show_default=False,
    ),
]


def say_site(request: Request) -> None:
    """Tell the user that a site file was used, and which."""
    if request.site_path is not None:
        typer.echo(f"site: {request.site_path}")


def say_tracking(request: Request, tracking: str) -> None:
    """Tell the user that the environment has chosen the store, where it has."""
    from dms_bench.config.request import TRACKING
    from dms_bench.tracking import shown

    if tracking == request.tracking:
        typer.echo(f"tracking: {shown(tracking)}, by {TRACKING}")
