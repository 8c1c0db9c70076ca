"""Laying one mapping over another: defaults under an experiment, a smoke variant over it."""

from __future__ import annotations

from typing import Any

#: Fields that say what a mapping describes. Options of one kind mean nothing to another.
_IDENTITY = ("kind", "name", "model")


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `over` laid over `under`, mapping by mapping; lists and values are replaced.

    A mapping that describes another thing (another `kind`, `name` or `model`) is replaced as well:
    the arguments of one model are not handed to another.
    """
    result = dict(under)
    for key, value in over.items():
        below = under.get(key)
        if isinstance(value, dict) and isinstance(below, dict) and not _other_thing(below, value):
            value = merged(below, value)
        result[key] = value
    return result


def _other_thing(below: dict[str, Any], value: dict[str, Any]) -> bool:
    return any(field in below and field in value and below[field] != value[field] for field in _IDENTITY)
