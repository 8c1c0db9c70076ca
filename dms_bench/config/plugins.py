"""Kinds of task and method, found through entry points, as discriminated unions.

A plug-in is a `Spec` subclass with a `kind` literal; it names its implementation as an import
string, so that reading a suite never imports torch. Packages register theirs under the entry-point
groups `dms_bench.tasks` and `dms_bench.methods`.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

from dms_bench.config.base import Spec
from dms_bench.config.problems import show
from dms_bench.errors import UserError, nearest

TASKS = "dms_bench.tasks"
METHODS = "dms_bench.methods"


class PluginSpec(Spec):
    """The specification of a plug-in; subclasses add `kind: Literal[...]` and their options."""

    implementation: ClassVar[str]
    """`module:attribute` of the class that does the work."""
    example: ClassVar[dict[str, Any]] = {}
    """Fields of an experiment that show the plug-in in use, for `dms-bench ls`; made of its defaults unless given."""

    kind: str
    """Which task or method it is: the name that it is registered under."""

    def load_implementation(self) -> Any:
        """Import the class that does the work.

        Raises:
            UserError: it is not there, or something that it needs.
        """
        module, _, attribute = self.implementation.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UserError(f"the implementation of {self.kind!r}, {self.implementation}: {error}") from error


@cache
def discovered(group: str) -> dict[str, type[PluginSpec] | UserError]:
    """Return what is installed under an entry-point group, by kind: its specification, or why that cannot be had."""
    return {point.name: _load(point) for point in sorted(entry_points(group=group), key=lambda point: point.name)}


def registered(group: str) -> dict[str, type[PluginSpec]]:
    """Return the specification classes of an entry-point group by kind, of those that can be imported."""
    return {kind: spec for kind, spec in discovered(group).items() if not isinstance(spec, UserError)}


def plugin_class(group: str, value: Any) -> type[PluginSpec] | None:
    """Return the specification class that a value, whatever is wrong with it, names; None where it names none."""
    kind = value.get("kind") if isinstance(value, dict) else value
    return registered(group).get(kind) if isinstance(kind, str) else None


def _load(point: EntryPoint) -> type[PluginSpec] | UserError:
    """Import a specification. A package that is broken must not stop suites that do without it."""
    noun = _noun(point.group)
    try:
        spec = point.load()
    except Exception as error:
        return UserError(f"{noun} {point.name!r} ({point.value}) cannot be imported: {' '.join(str(error).split())}")
    if not (isinstance(spec, type) and issubclass(spec, PluginSpec)):
        return UserError(f"{noun} {point.name!r} ({point.value}): {spec!r} is no PluginSpec")
    return spec


def _noun(group: str) -> str:
    return group.rpartition(".")[2].rstrip("s")


def parse_plugin(group: str, value: Any) -> PluginSpec:
    """Validate `value` (a mapping with `kind`, or just the kind) as one of the group's specs."""
    if isinstance(value, PluginSpec):
        return value
    if isinstance(value, str):
        value = {"kind": value}
    noun = _noun(group)
    if isinstance(value, list):
        raise ValueError(f"{show(value)} is a list; several are swept over, in sweep.grid.{noun}")
    if not isinstance(value, dict):
        raise ValueError(f"{show(value)} is neither the name of a {noun} nor a mapping with the field 'kind'")
    if "kind" not in value:
        raise ValueError("needs the field 'kind'")
    classes = registered(group)
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in classes:
        problem = discovered(group).get(kind) if isinstance(kind, str) else None
        raise ValueError(
            str(problem)
            if isinstance(problem, UserError)
            else f"unknown {noun} {show(kind)}; {nearest(str(kind), classes)}"
        )
    return classes[kind].model_validate(value)
