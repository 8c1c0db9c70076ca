"""The command on this machine: whether it can be trusted with a suite."""

from __future__ import annotations

from typing import Annotated

import typer

from dms_bench.cli.output import console
from dms_bench.cli.results import Tracking

_TRACKING = "sqlite:///mlflow.db"
_STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


def doctor(
    storage: Annotated[str, typer.Option(help="Folder where suites keep their files.")] = "runs",
    tracking: Tracking = _TRACKING,
) -> int:
    """Check this machine in less than a minute: kernels against float64, Ray, disk, memory, ports, tracking."""
    from rich.text import Text

    from dms_bench.runtime.doctor import examine

    out = console()
    levels = []
    for finding in examine(storage, tracking):
        levels.append(finding.level)
        line = Text(f"{finding.level:8}", style=_STYLES[finding.level])
        line.append(f"{finding.subject}: {finding.message}", style="default")
        if finding.advice:
            line.append(f"; {finding.advice}", style="bold")
        out.print(line, soft_wrap=True)
    errors, warnings = levels.count("error"), levels.count("warning")
    out.print(f"{errors} errors, {warnings} warnings" if errors or warnings else "all is well")
    return 1 if errors else 0
