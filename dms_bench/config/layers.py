"""The layers of a suite file: defaults under every experiment, a profile over the file, a smoke variant over all."""

from __future__ import annotations

import re
from typing import Any

from dms_bench.config.merge import merged
from dms_bench.config.problems import NAME, InvalidSpecError, Path, Problem, show
from dms_bench.errors import nearest

#: How the name of a smoke variant ends.
SMOKE = "smoke"


def profiles_of(document: Any) -> dict[str, dict[str, Any]]:
    """Return the profiles of a document that are profiles; what is wrong with the others says `wrong_profiles`."""
    profiles = document.get("profiles") if isinstance(document, dict) else None
    return (
        {name: value for name, value in profiles.items() if not _wrong(name, value, profiles)}
        if isinstance(profiles, dict)
        else {}
    )


def wrong_profiles(document: Any) -> list[Problem]:
    """Return what is wrong with the profiles of a document, but for what is in them."""
    profiles = document.get("profiles", {}) if isinstance(document, dict) else {}
    if not isinstance(profiles, dict):
        return [Problem(("profiles",), f"{show(profiles)} is not a mapping")]
    return [problem for name, value in profiles.items() for problem in _wrong(name, value, profiles)]


def _wrong(name: Any, value: Any, profiles: dict[Any, Any]) -> list[Problem]:
    if not isinstance(name, str):
        return [Problem(("profiles",), f"{show(name)} is not a name")]
    place = ("profiles", name)
    twins = [other for other in profiles if isinstance(other, str) and other is not name and _same(other, name)]
    problems = []
    if not re.fullmatch(NAME, name):
        problems.append(Problem(place, f"{show(name)} is no name: letters, digits, '_', '.' and '-', at most 64"))
    elif name.lower() == SMOKE or name.lower().endswith(f"-{SMOKE}"):
        problems.append(Problem(place, f"names of profiles do not end in {SMOKE!r}, as smoke variants' do"))
    elif twins:
        problems.append(Problem(place, f"differs from {twins[0]!r} in capitals alone, as folders may not"))
    if not isinstance(value, dict):
        problems.append(Problem(place, f"{show(value)} is not a mapping"))
    elif "name" in value:
        problems.append(Problem((*place, "name"), "is the suite's name with the profile's, and not to be set"))
    return problems


def _same(one: str, other: Any) -> bool:
    return isinstance(other, str) and one.lower() == other.lower()


def profiled(document: Any, profile: str | None) -> Any:
    """Lay a profile over a document, which comes back without its profiles.

    Raises:
        InvalidSpecError: there is no such profile, or it is none.
    """
    if profile is None:
        without = isinstance(document, dict) and "profiles" in document
        return {field: value for field, value in document.items() if field != "profiles"} if without else document
    profiles = profiles_of(document)
    if profile not in profiles:
        advice = nearest(profile, profiles) if profiles else "the suite has none"
        wrong = [problem for problem in wrong_profiles(document) if problem.path[1:2] in ((), (profile,))]
        raise InvalidSpecError(wrong or [Problem(("profiles",), f"no profile {profile!r}; {advice}")])
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
        under, over = ({field: value for field, value in layer.items() if field != "name"} for layer in layers.values())
        suite["experiments"] = [
            merged(merged(under, experiment), over if smoke else {}) if isinstance(experiment, dict) else experiment
            for experiment in suite["experiments"]
        ]
    if smoke and isinstance(suite.get("name"), str):
        suite["name"] += f"-{SMOKE}"
    return suite


def named_layers(document: Any) -> list[Problem]:
    """Return the layers that have a name, which would be that of every experiment."""
    layers = document if isinstance(document, dict) else {}
    return [
        Problem((layer, "name"), "is each experiment's own, and not to be set")
        for layer in ("defaults", SMOKE)
        if isinstance(layers.get(layer), dict) and "name" in layers[layer]
    ]


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
