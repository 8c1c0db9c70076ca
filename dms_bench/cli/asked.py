"""Options that several commands have, by which a suite is run as one wants it, without being edited."""

from __future__ import annotations

from typing import Annotated

import typer

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
