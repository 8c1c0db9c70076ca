"""The layers of a suite file: defaults under every experiment, a profile over the file, a smoke variant over all."""

from __future__ import annotations

from typing import Any

from dms_bench.config.merge import merged
from dms_bench.config.problems import InvalidSpecError, Path, Problem, show
from dms_bench.errors import nearest


def profiles_of(document: Any) -> dict[str, Any]:
    """Return the profiles of a document.

    Raises:
        InvalidSpecError: they are not mappings.
    """
    profiles = document.get("profiles", {}) if isinstance(document, dict) else {}
    if not isinstance(profiles, dict):
        raise InvalidSpecError([Problem(("profiles",), f"{show(profiles)} is not a mapping")])
    wrong = [Problem(("profiles",), f"{show(name)} is not a name") for name in profiles if not isinstance(name, str)]
    wrong += [
        Problem(("profiles", name), f"{show(value)} is not a mapping")
        for name, value in profiles.items()
        if not isinstance(value, dict)
    ]
    wrong += [
        Problem(("profiles", name, "name"), "is the suite's name with the profile's, and not to be set")
        for name, value in profiles.items()
        if isinstance(value, dict) and "name" in value
    ]
    if wrong:
        raise InvalidSpecError(wrong)
    return dict(profiles)


def profiled(document: Any, profile: str | None) -> Any:
    """Lay a profile over a document, which comes back without its profiles.

    Raises:
        InvalidSpecError: there is no such profile, or they are not mappings.
    """
    if profile is None:
        without = isinstance(document, dict) and "profiles" in document
        return {field: value for field, value in document.items() if field != "profiles"} if without else document
    profiles = profiles_of(document)
    if profile not in profiles:
        advice = nearest(profile, profiles) if profiles else "the suite has none"
        raise InvalidSpecError([Problem(("profiles",), f"no profile {profile!r}; {advice}")])
    layered = merged({field: value for field, value in document.items() if field != "profiles"}, profiles[profile])
    name = document.get("name")
    return layered | ({"name": f"{name}-{profile}"} if isinstance(name, str) else {})


def in_profile(path: Path, document: Any, profile: str | None) -> Path:
    """Return where a path of the profiled document stands in the file: the profile's own fields first."""
    if profile is None:
        return path
    section = ("profiles", profile)
    if _in_a_list(document["profiles"][profile], path):
        return (*section, *path)
    inside = _depth(document, (*section, *path)) - len(section)
    return (*section, *path) if inside > 0 and inside >= _depth(document, path) else path


def combined(document: Any, smoke: bool) -> dict[str, Any]:
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


def as_written(path: Path, document: dict[str, Any], smoke: bool) -> Path:
    """Return where in the document the value at `path` of the combined suite was written."""
    if len(path) < 3 or path[0] != "experiments":
        return path
    field = path[2:]
    layers: list[Path] = [("smoke",)] if smoke else []
    layers += [path[:2], ("defaults",)]
    depths = [_depth(document, (*layer, *field)) - len(layer) for layer in layers]
    deepest = max(depths)
    # A missing field belongs to the experiment, unless only another layer has what it is missing from.
    layer = path[:2] if deepest <= 0 else layers[depths.index(deepest)]
    return (*layer, *field)


def _in_a_list(node: Any, path: Path) -> bool:
    """Whether a path leads into a list of a profile, which replaces the file's own."""
    for part in path:
        if isinstance(node, list):
            return True
        node = node.get(part) if isinstance(node, dict) else None
    return False


def _depth(node: Any, path: Path) -> int:
    """Return how many steps of `path` lead somewhere."""
    for depth, part in enumerate(path):
        if not (part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))):
            return depth
        node = node[part]
    return len(path)
