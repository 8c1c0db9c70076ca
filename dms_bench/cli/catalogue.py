"""What there is to choose from: installed tasks and methods with their options, and suite files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dms_bench.cli.options import Section, example, sections
from dms_bench.cli.output import count_of
from dms_bench.config import load_suite
from dms_bench.config.described import summary
from dms_bench.config.plugins import METHODS, TASKS, PluginSpec, discovered
from dms_bench.config.task import TaskSpec
from dms_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

Headings = tuple[str, ...]
Rows = list[tuple[str, ...]]

#: Columns of a terminal below which what an option takes and means share one.
NARROW = 72
#: Where suites live, relative to the working folder.
SUITES = Path("benchmarks")
#: What has options to show, by the name of its listing.
_GROUPS = {"tasks": TASKS, "methods": METHODS}


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
        if not path.is_file() or "experiments:" not in path.read_text(errors="replace"):
            continue
        try:
            suite = load_suite(path)
        except UserError as error:
            rows.append((str(path), "not valid", str(error).splitlines()[0]))
        else:
            rows.append((str(path), count_of(suite), " ".join(suite.description.split())))
    return ("suite", "trials", "what it is"), rows


def _plugins(group: str) -> Rows:
    """Return kind, meaning and package of what is installed, or why it cannot be had."""
    return [
        (kind, str(spec), "") if isinstance(spec, UserError) else (kind, summary(spec), spec.__module__.split(".")[0])
        for kind, spec in discovered(group).items()
    ]


LISTINGS: dict[str, Callable[[], tuple[Headings, Rows]]] = {"tasks": tasks, "methods": methods, "suites": suites}


def options(listing: str, name: str) -> Group:
    """Return the options of a task or method (of a task also those of its recipes) and an example, to be printed.

    Raises:
        UserError: there is no such task or method, or the listing is of something else.
    """
    from rich.console import Group
    from rich.text import Text

    if listing not in _GROUPS:
        raise UserError(f"{listing} have no options to show; `dms-bench plan FILE` shows the trials of a suite")
    noun, specs = listing.removesuffix("s"), discovered(_GROUPS[listing])
    if name not in specs:
        raise UserError(f"there is no {noun} {name!r}; {nearest(name, specs)}")
    spec = specs[name]
    if isinstance(spec, UserError):
        raise spec
    parts: list[Text | Table] = [Text(f"{noun} {name}: {summary(spec)}")]
    filled = [section for section in _sections(spec, noun) if section.rows]
    parts += [_table(section) for section in filled] or [Text("It has no options.\n")]
    shown = example(spec, noun)
    if shown:
        parts.append(Text(f"For example, as part of an experiment:\n\n{shown}", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def _sections(spec: type[PluginSpec], noun: str) -> list[Section]:
    all_sections = sections(spec, noun)
    if issubclass(spec, TaskSpec):
        all_sections += sections(spec.recipe_class, "pretrain, search, retrain")
    return all_sections


def _table(section: Section) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text(section.title), title_justify="left")
    table.add_column("option", no_wrap=True)
    if shutil.get_terminal_size().columns < NARROW:
        table.add_column("type, default, meaning", overflow="fold")
        for option, kind, default, meaning in section.rows:
            table.add_row(
                Text(option), Text("; ".join(filter(None, (kind, default and f"default {default}", meaning))))
            )
        return table
    table.add_column("type", max_width=24, overflow="fold")
    table.add_column("default", max_width=16, overflow="fold")
    table.add_column("meaning")
    for row in section.rows:
        table.add_row(*map(Text, row))
    return table
