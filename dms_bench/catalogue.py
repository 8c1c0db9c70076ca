"""What there is to choose from: installed tasks and methods, and suite files."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

from dms_bench.config import load_suite, trial_count
from dms_bench.config.plugins import METHODS, TASKS, registered
from dms_bench.errors import UserError

Headings = tuple[str, ...]
Rows = list[tuple[str, ...]]

#: Where suites live, relative to the working folder.
SUITES = Path("benchmarks")


def tasks() -> tuple[Headings, Rows]:
    """Return the installed tasks."""
    return ("task", "what it is", "from"), _plugins(TASKS)


def methods() -> tuple[Headings, Rows]:
    """Return the installed search methods."""
    return ("method", "what it is", "from"), _plugins(METHODS)


def suites() -> tuple[Headings, Rows]:
    """Return the suite files under `benchmarks/`; other YAML files there (published figures) are left out."""
    rows: Rows = []
    for path in sorted(SUITES.rglob("*.yaml")):
        if "experiments:" not in path.read_text(errors="replace"):
            continue
        try:
            suite = load_suite(path)
        except UserError as error:
            rows.append((str(path), "not valid", str(error).splitlines()[0]))
        else:
            rows.append((str(path), str(trial_count(suite)), " ".join(suite.description.split())))
    return ("suite", "trials", "what it is"), rows


def _plugins(group: str) -> Rows:
    return [
        (kind, (inspect.getdoc(spec) or "").partition("\n")[0], spec.__module__)
        for kind, spec in registered(group).items()
    ]


LISTINGS: dict[str, Callable[[], tuple[Headings, Rows]]] = {"tasks": tasks, "methods": methods, "suites": suites}
