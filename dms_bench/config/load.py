"""From a suite file to a `Suite` whose trials are all known to be valid."""

from __future__ import annotations

from pathlib import Path as File
from typing import Any

from pydantic import ValidationError

from dms_bench.config.document import read_document
from dms_bench.config.layers import as_written, combined, in_profile, profiled, profiles_of
from dms_bench.config.problems import UNKNOWN, WITH, InvalidSpecError, Path, Problem, problems_of
from dms_bench.config.resolve import resolve
from dms_bench.config.suite import Experiment, Suite
from dms_bench.errors import UserError


def load_suite(path: str | File, *, profile: str | None = None, smoke: bool = False) -> Suite:
    """Read a suite file, and check every trial of it, of its profiles and of their smoke variants.

    `defaults` in the file is laid under every experiment. A profile is laid over the file: mappings
    are merged, lists (`experiments`) replaced. With `smoke`, `smoke` is laid over every experiment.
    The suite is then called `<name>-<profile>-smoke`, so that variants never share a leaderboard.

    Args:
        path: the file.
        profile: one of its `profiles`; by default the file as it stands.
        smoke: the smoke variant.

    Raises:
        UserError: the file cannot be read or is not valid; a line per problem with the path of the
            field as it stands in the file.
    """
    document = read_document(File(path))
    suites: list[Suite] = []
    problems: list[Problem] = []
    try:
        names = [None, *profiles_of(document)]
    except InvalidSpecError as error:
        names, problems = [None], error.problems
    variants = [(name, small) for name in names for small in _with_smoke(document, name)]
    for variant in dict.fromkeys([(profile, smoke), *variants]):
        try:
            suites.append(parse_suite(document, profile=variant[0], smoke=variant[1]))
        except InvalidSpecError as error:
            problems += error.problems
    if problems:
        raise UserError("\n".join(f"{path}: {_named(problem, document)}" for problem in _once(problems)))
    return suites[0]


def _with_smoke(document: Any, profile: str | None) -> tuple[bool, ...]:
    """Return whether a suite is run as it stands, and also in small where it says how."""
    layered = profiled(document, profile)
    return (False, True) if isinstance(layered, dict) and "smoke" in layered else (False,)


def _once(problems: list[Problem]) -> list[Problem]:
    """Leave out what was said before; with which values of a sweep it is wrong may differ between variants."""
    by_place: dict[tuple[Path, str], Problem] = {}
    for problem in problems:
        by_place.setdefault((problem.path, problem.text.partition(WITH)[0]), problem)
    return list(by_place.values())


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


def parse_suite(document: Any, *, profile: str | None = None, smoke: bool = False) -> Suite:
    """Do as `load_suite` does for the content of a file.

    Raises:
        InvalidSpecError: the document is no valid suite; paths as in the document.
    """
    laid = profiled(document, profile)
    content = combined(laid, smoke)
    try:
        suite = Suite.model_validate(content)
        resolve(suite)
    except ValidationError as error:
        problems = problems_of(error, content)
        problems += _hidden_behind(problems, content)
    except InvalidSpecError as error:
        problems = error.problems
    else:
        return suite
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
        position: {field: value for field, value in experiment.items() if field in Experiment.model_fields}
        | {"name": str(position)}  # of two that have one name
        for position, experiment in enumerate(experiments)
        if isinstance(experiment, dict) and all(_of_unknown_field(problem) for problem in wrong.get(position, ()))
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


def _of_unknown_field(problem: Problem) -> bool:
    return len(problem.path) == 3 and problem.text.startswith(UNKNOWN)
