"""Changes to a suite that are made on the command line: `--set search.epochs=2`, `--set EXPERIMENT:search.epochs=2`.

They are laid over a suite last: over its defaults, its profile, its smoke variant and its sweeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from dms_bench.config.document import read_value
from dms_bench.config.problems import Path, Problem, show
from dms_bench.config.suite import Experiment
from dms_bench.errors import UserError, nearest

#: Fields of an experiment that may be written as the name of a kind alone.
_KINDS = ("task", "method")
#: Mappings whose keys are themselves dotted fields.
_DOTTED = (("sweep", "grid"), ("sweep", "sample", "space"))


@dataclass(frozen=True)
class Change:
    """A value for a field of some experiments."""

    #: As it was given, which is how messages name it.
    text: str
    #: Pattern of the experiments' names; None: all that have a use for it.
    experiment: str | None
    path: tuple[str, ...]
    value: Any

    def __str__(self) -> str:
        return f"--set {self.text}"

    def refused(self, reason: str) -> UserError:
        """Return the error that says why it cannot be made."""
        return UserError(f"{self}: {reason}")


def read_change(text: str) -> Change:
    """Read `PATH=VALUE` or `EXPERIMENT:PATH=VALUE`; the value is YAML.

    Raises:
        UserError: it is not of this form, or no experiment has such a field.
    """
    place, equals, value = text.partition("=")
    experiment, colon, field = place.rpartition(":")
    if not equals or not field or not all(field.split(".")):
        raise UserError(f"--set {text}: write PATH=VALUE, such as search.epochs=2 or EXPERIMENT:search.epochs=2")
    path = _split(field)
    fields = [name for name in Experiment.model_fields if name != "name"]
    if path[0] not in fields:
        raise UserError(f"--set {text}: no field {path[0]!r} of an experiment; {nearest(path[0], fields)}")
    try:
        return Change(text, experiment if colon else None, path, read_value(value))
    except UserError as error:
        raise UserError(f"--set {text}: {error}") from None


def _split(field: str) -> tuple[str, ...]:
    parts = tuple(field.split("."))
    for dotted in _DOTTED:
        depth = len(dotted)
        if parts[:depth] == dotted and len(parts) > depth:
            return (*dotted, ".".join(parts[depth:]))
    return parts


def changed(suite: dict[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """Return the content of a suite, its layers laid over one another, with changes on top.

    A field that a sweep varies has the one value then, and is no longer swept. An experiment that has nothing of what
    a field stands in (no `pretrain` where `pretrain.epochs` is set) gets none, unless it is named, or all are so.

    Raises:
        UserError: no experiment has that name, or a field stands in what has no fields.
    """
    experiments = suite.get("experiments")
    if not isinstance(experiments, list):
        return suite  # which is refused
    for change in changes:
        named = [entry for entry in experiments if isinstance(entry, dict) and _is_meant(entry, change)]
        if not named:
            names = [str(entry.get("name")) for entry in experiments if isinstance(entry, dict)]
            raise change.refused(f"no experiment {change.experiment!r}; {nearest(str(change.experiment), names)}")
        useful = named if change.experiment else [entry for entry in named if _has_use(entry, change.path)] or named
        experiments = [
            _changed(entry, change) if any(entry is one for one in useful) else entry for entry in experiments
        ]
    return suite | {"experiments": experiments}


def _is_meant(experiment: dict[str, Any], change: Change) -> bool:
    return change.experiment is None or fnmatchcase(str(experiment.get("name")), change.experiment)


def _has_use(experiment: dict[str, Any], path: tuple[str, ...]) -> bool:
    """Tell whether an experiment has, or sweeps over, what a field stands in."""
    if len(path) == 1 or path[0] in ("resources", "sweep") or experiment.get(path[0]) is not None:
        return True
    return any(_parts(axis)[0] == path[0] for axes in _swept(experiment) for axis in axes)


def _changed(experiment: dict[str, Any], change: Change) -> dict[str, Any]:
    if change.path[0] == "sweep":
        return _put(experiment, change, change.path, change.value)
    if any(
        _begins(change.path, _parts(axis)) and _parts(axis) != change.path for ax in _swept(experiment) for axis in ax
    ):
        return _in_sweep(experiment, change)  # the field's owner is swept over: each of its values has the field
    return _in_sweep(_put(experiment, change, change.path, change.value), change)


def _in_sweep(experiment: dict[str, Any], change: Change) -> dict[str, Any]:
    """Take a field out of the experiment's sweep; where what it stands in is swept over, set it in every value."""
    sweep = experiment.get("sweep")
    if not isinstance(sweep, dict):
        return experiment
    sweep = dict(sweep)
    if isinstance(sweep.get("grid"), dict):
        sweep["grid"] = _axes(sweep["grid"], change)
    sample = sweep.get("sample")
    if isinstance(sample, dict) and isinstance(sample.get("space"), dict):
        space = _axes(sample["space"], change)
        sweep["sample"] = sample | {"space": space}
        if sample["space"] and not space:  # nothing is left to be drawn
            del sweep["sample"]
    return experiment | {"sweep": sweep}


def _axes(axes: dict[str, Any], change: Change) -> dict[str, Any]:
    kept = {}
    for axis, values in axes.items():
        parts = _parts(axis)
        if _begins(parts, change.path):
            continue
        if _begins(change.path, parts) and isinstance(values, list):
            owner, rest = parts[-1], change.path[len(parts) :]
            # A value is put where it stands in an experiment, so that the name of a kind is read as there.
            top = len(parts) == 1
            values = [_put({owner: value}, change, (owner, *rest), change.value, top)[owner] for value in values]
        kept[axis] = values
    return kept


def _put(node: dict[str, Any], change: Change, path: Sequence[str], value: Any, top: bool = True) -> dict[str, Any]:
    """Return a mapping with a value at a path in it; the mappings on the way are copied."""
    first, *rest = path
    if not rest:
        return node | {first: value}
    child = node.get(first)
    if isinstance(child, str) and top and first in _KINDS:
        child = {"kind": child}
    if child is not None and not isinstance(child, dict):
        raise change.refused(f"{first!r} is {show(child)}, which has no fields: set all of it, as a mapping")
    return node | {first: _put(child or {}, change, rest, value, False)}


def _swept(experiment: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the mappings of an experiment's sweep whose keys are fields of a trial."""
    sweep = experiment.get("sweep")
    sweep = sweep if isinstance(sweep, dict) else {}
    sample = sweep.get("sample")
    found = [sweep.get("grid"), sample.get("space") if isinstance(sample, dict) else None]
    return [axes for axes in found if isinstance(axes, dict)]


def _parts(axis: str) -> tuple[str, ...]:
    return tuple(axis.split("."))


def _begins(path: Sequence[str | int], beginning: Sequence[str | int]) -> bool:
    return tuple(path[: len(beginning)]) == tuple(beginning)


def blamed(problems: Iterable[Problem], changes: Sequence[Change]) -> list[Problem]:
    """Name the changes that problems come from, once each: nobody finds their values in the file."""
    others: list[Problem] = []
    blames: dict[str, Problem] = {}
    for problem in problems:
        field = _field(problem.path)
        change = next((change for change in reversed(changes) if field and _is_of(field, change)), None)
        if change is None:
            others.append(problem)
        else:
            inside = "".join(f"{part}: " for part in (".".join(map(str, field[len(change.path) :])),) if part)
            # Of several values of a sweep each may refuse it in its own words.
            blames.setdefault(change.text, Problem((), f"{change}: {inside}{problem.text}"))
    return [*blames.values(), *others]


def _is_of(field: Path, change: Change) -> bool:
    """Tell whether a problem is with the field, with a part of its value, or with what the field is put in."""
    return _begins(field, change.path) or _begins(change.path, field)


def _field(path: Path) -> Path:
    """Return the field of a trial that a problem of a suite is about; none where it is about no one field."""
    match path:
        case ("experiments", int(), "sweep", "grid", str(axis), int(), *rest):
            return (*_parts(axis), *rest)
        case ("experiments", int(), "sweep", "grid", str(axis)):  # that it does not exist, whatever the value
            return ("sweep", "grid", axis)
        case ("experiments", int(), *rest):
            return tuple(rest)
    return ()
