"""From a suite file to a `Suite` whose trials are all known to be valid."""

from __future__ import annotations

from pathlib import Path as File
from typing import Any

from pydantic import ValidationError

from dms_bench.errors import UserError
from dms_bench.spec.document import read_document
from dms_bench.spec.merge import merged
from dms_bench.spec.problems import InvalidSpecError, Path, Problem, problems_of, show
from dms_bench.spec.resolve import resolve
from dms_bench.spec.suite import Suite


def load_suite(path: str | File, *, smoke: bool = False) -> Suite:
    """Read a suite file, and check every trial of it and of its smoke variant.

    `defaults` in the file is laid under every experiment. With `smoke`, the file's `smoke` is laid
    over every experiment, and the suite is called `<name>-smoke`, so that the two never share a
    leaderboard.

    Raises:
        UserError: the file cannot be read or is not valid; a line per problem with the path of the
            field as it stands in the file.
    """
    document = read_document(File(path))
    try:
        suite = parse_suite(document, smoke=smoke)
        if "smoke" in document and not smoke:
            parse_suite(document, smoke=True)
    except InvalidSpecError as error:
        raise UserError("\n".join(f"{path}: {problem}" for problem in error.problems)) from None
    return suite


def parse_suite(document: Any, *, smoke: bool = False) -> Suite:
    """Do as `load_suite` does for the content of a file.

    Raises:
        InvalidSpecError: the document is no valid suite; paths as in the document.
    """
    combined = _combined(document, smoke)
    try:
        suite = Suite.model_validate(combined)
        resolve(suite)
    except ValidationError as error:
        problems = problems_of(error, combined)
    except InvalidSpecError as error:
        problems = error.problems
    else:
        return suite
    # One mistake in the defaults is found in every experiment: say it once.
    written = (Problem(_as_written(path, document, smoke), text) for path, text in problems)
    raise InvalidSpecError(list(dict.fromkeys(written))) from None


def _combined(document: Any, smoke: bool) -> dict[str, Any]:
    """Lay defaults and smoke variant under and over the experiments.

    Raises:
        InvalidSpecError: these are not mappings, or there is no `smoke`.
    """
    if not isinstance(document, dict):
        text = "is empty" if document is None else f"{show(document)} is not a mapping"
        raise InvalidSpecError([Problem((), f"a suite is a mapping with a name and experiments; this file {text}")])
    layers = {layer: document.get(layer, {}) for layer in ("defaults", "smoke")}
    wrong = [
        Problem((layer,), f"{show(value)} is not a mapping")
        for layer, value in layers.items()
        if not isinstance(value, dict)
    ]
    if smoke and "smoke" not in document:
        wrong.append(Problem(("smoke",), "missing; it says what a smoke run changes in every experiment"))
    if wrong:
        raise InvalidSpecError(wrong)
    suite = {field: value for field, value in document.items() if field not in layers}
    if isinstance(suite.get("experiments"), list):
        suite["experiments"] = [
            merged(merged(layers["defaults"], experiment), layers["smoke"] if smoke else {})
            if isinstance(experiment, dict)
            else experiment
            for experiment in suite["experiments"]
        ]
    if smoke and isinstance(suite.get("name"), str):
        suite["name"] += "-smoke"
    return suite


def _as_written(path: Path, document: dict[str, Any], smoke: bool) -> Path:
    """Return where in the document the value at `path` of the combined suite was written."""
    if len(path) < 3 or path[0] != "experiments":
        return path
    field = path[2:]
    places: list[Path] = [("smoke",)] if smoke else []
    places += [path[:2], ("defaults",)]
    depths = [_depth(document, (*place, *field)) - len(place) for place in places]
    deepest = max(depths)
    # A missing field belongs to the experiment, unless only another place has what it is missing from.
    place = path[:2] if deepest <= 0 else places[depths.index(deepest)]
    return (*place, *field)


def _depth(node: Any, path: Path) -> int:
    """Return how many steps of `path` lead somewhere."""
    for depth, part in enumerate(path):
        if not (part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))):
            return depth
        node = node[part]
    return len(path)
