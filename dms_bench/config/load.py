"""From a suite file to a `Suite` whose trials are all known to be valid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as File
from typing import Any

from pydantic import ValidationError

from dms_bench.config.changes import Change, blamed, changed
from dms_bench.config.content import forget
from dms_bench.config.deciding import check_selection, families, idle_comparisons
from dms_bench.config.document import read_document
from dms_bench.config.layers import (
    as_written,
    combined,
    in_profile,
    named_layers,
    profiled,
    profiles_of,
    wrong_profiles,
)
from dms_bench.config.problems import WITH, InvalidSpecError, Path, Problem, problems_of
from dms_bench.config.request import NOTHING, Request
from dms_bench.config.resolve import resolve
from dms_bench.config.site import NOWHERE, Site
from dms_bench.config.suite import Experiment, Suite
from dms_bench.errors import UserError


def load_suite(
    path: str | File,
    *,
    profile: str | None = None,
    smoke: bool = False,
    request: Request = NOTHING,
) -> Suite:
    """Read a suite file, and check every trial of it, of its profiles and of their smoke variants.

    `defaults` in the file is laid under every experiment. A profile is laid over the file: mappings
    are merged, lists (`experiments`) replaced. With `smoke`, `smoke` is laid over every experiment.
    The suite is then called `<name>-<profile>-smoke`, so that variants never share a leaderboard.

    Args:
        path: the file.
        profile: one of its `profiles`; by default the file as it stands.
        smoke: the smoke variant.
        request: changes that are laid over all of that, and which of the trials are meant.

    Raises:
        UserError: the file cannot be read or is not valid; a line per problem with the path of the
            field as it stands in the file, or with the change. No trial is as requested.
    """
    forget()
    document = read_document(File(path))
    suites: list[Suite] = []
    problems = _Gathered()
    problems.note(wrong_profiles(document))
    variants = [(name, small) for name in (None, *profiles_of(document)) for small in _with_smoke(document, name)]
    # The file as it stands is read first, so that what is wrong there is not blamed on a variant.
    for variant in dict.fromkeys([*variants, (profile, smoke)]):
        try:
            suite = parse_suite(document, profile=variant[0], smoke=variant[1])
        except InvalidSpecError as error:
            problems.note(error.problems, *variant)
        else:
            if variant == (profile, smoke):
                suites.append(suite)
    if (request.changes or request.site is not NOWHERE) and not problems.all:
        try:
            suites = [parse_suite(document, profile=profile, smoke=smoke, changes=request.changes, site=request.site)]
        except InvalidSpecError as error:
            where = f" (with {request.site_path})" if request.site_path is not None else ""
            problems.note([Problem(path, text + where) for path, text in error.problems])
    if problems.all:
        raise UserError("\n".join(f"{path}: {_named(problem, document)}" for problem in problems.all))
    if request.selection:
        check_selection(suites[0], request.selection)
        return suites[0].narrowed(request.selection)
    return suites[0]


def _with_smoke(document: Any, profile: str | None) -> tuple[bool, ...]:
    """Return whether a suite is run as it stands, and also in small where it says how."""
    layered = profiled(document, profile)
    return (False, True) if isinstance(layered, dict) and "smoke" in layered else (False,)


class _Gathered:
    """What is wrong with the variants of a suite, each thing once."""

    def __init__(self) -> None:
        self._by_place: dict[tuple[Path, str], Problem] = {}

    @property
    def all(self) -> list[Problem]:
        return list(self._by_place.values())

    def note(self, problems: list[Problem], profile: str | None = None, smoke: bool = False) -> None:
        """Note the problems of a variant, and name it where their place does not."""
        variant = " of ".join(
            [*(["the smoke variant"] if smoke else []), *([f"profile {profile!r}"] if profile is not None else [])]
        )
        for problem in problems:
            # A name is the suite's in all variants. With which values of a sweep something is wrong may differ.
            place = (problem.path, "" if problem.path == ("name",) else problem.text.partition(WITH)[0])
            if place not in self._by_place:
                said = not variant or problem.path[:1] in (("smoke",), ("profiles",))
                text = problem.text if said else f"{problem.text} (in {variant})"
                self._by_place[place] = Problem(problem.path, text)


def _named(problem: Problem, document: Any) -> str:
    """Write a problem with the name of the experiment that it is in, where that has one."""
    match problem.path:
        case ("experiments", int(position), *rest):
            name = document["experiments"][position].get("name") if _is_mapping_at(document, position) else None
            if isinstance(name, str) and name and rest != ["name"]:
                return str(problem).replace(f"experiments[{position}]", f"experiments[{position}] ({name})", 1)
    return str(problem)


def _is_mapping_at(document: Any, position: int) -> bool:
    experiments = document.get("experiments") if isinstance(document, dict) else None
    return isinstance(experiments, list) and position < len(experiments) and isinstance(experiments[position], dict)


def profile_names(path: str | File) -> tuple[str, ...]:
    """Return the names of a suite file's profiles.

    Raises:
        UserError: the file cannot be read.
    """
    document = read_document(File(path))
    return tuple(profiles_of(document)) if isinstance(document, dict) else ()


def parse_suite(
    document: Any,
    *,
    profile: str | None = None,
    smoke: bool = False,
    changes: Sequence[Change] = (),
    site: Site = NOWHERE,
) -> Suite:
    """Do as `load_suite` does for the content of a file.

    Raises:
        InvalidSpecError: the document is no valid suite; paths as in the document.
        UserError: a change cannot be made.
    """
    laid = profiled(document, profile)
    content = changed(site.over(combined(laid, smoke)), changes)
    problems = named_layers(laid)
    try:
        suite = Suite.model_validate(content).placed(site.data_under(changes))
        resolve(suite)
        families(suite)
        if not smoke and not changes:  # which may give the seeds of a suite that decides
            problems += idle_comparisons(suite)
    except ValidationError as error:
        problems += problems_of(error, content)
        problems += _hidden_behind(problems, content)
    except InvalidSpecError as error:
        problems += error.problems
    if not problems:
        return suite
    problems = blamed(problems, changes)
    # One mistake in the defaults is found in every experiment: say it once.
    layered = (Problem(as_written(path, laid, smoke), text) for path, text in problems)
    written = (Problem(in_profile(path, document, profile), text) for path, text in layered)
    raise InvalidSpecError(list(dict.fromkeys(written))) from None


def _hidden_behind(problems: list[Problem], content: dict[str, Any]) -> list[Problem]:
    """Return what is wrong with the trials of a suite that cannot be read because of `problems`.

    Whoever corrects one mistake should not meet the next one only then. Fields that do not exist are left out, and
    experiments with other problems of their own.
    """
    experiments = content.get("experiments")
    if not isinstance(experiments, list):
        return []
    wrong: dict[int, list[Problem]] = {}
    for problem in problems:
        match problem.path:
            case ("experiments", int(position), *_):
                wrong.setdefault(position, []).append(problem)
    readable = {
        position: _without(experiment, wrong.get(position, [])) | {"name": str(position)}  # of two that have one name
        for position, experiment in enumerate(experiments)
        if isinstance(experiment, dict)
    }
    if not readable:
        return []
    resources = {} if any(path[:1] == ("resources",) for path, _ in problems) else content.get("resources", {})
    try:
        resolve(Suite.model_validate({"name": "rest", "resources": resources, "experiments": list(readable.values())}))
    except InvalidSpecError as error:
        positions = list(readable)
        hidden = [Problem((path[0], positions[int(path[1])], *path[2:]), text) for path, text in error.problems]
        # A misspelt field is probably the one that is missing: say it once.
        return [
            problem
            for problem in hidden
            if not (problem.path[1] in wrong and len(problem.path) == 3 and problem.text == "missing")
        ]
    return []


def _without(experiment: dict[str, Any], wrong: list[Problem]) -> dict[str, Any]:
    """Leave out the fields that have a problem, or that no experiment has."""
    reported = {problem.path[2] for problem in wrong if len(problem.path) > 2}
    return {
        field: value
        for field, value in experiment.items()
        if field in Experiment.model_fields and field not in reported
    }
