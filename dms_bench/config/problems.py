"""Validation errors as lines that people can act on: where, what, and the nearest valid choice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dms_bench.errors import UserError, nearest

#: Where in a document something stands: field names and list positions.
Path = tuple[str | int, ...]


class Problem(NamedTuple):
    """One thing that is wrong, and where."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"{show_path(self.path)}: {self.text}" if self.path else self.text


class InvalidSpecError(UserError):
    """A specification with problems; the message has a line for each."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


def show(value: Any, limit: int = 60) -> str:
    """Write a value shortly, on one line and with YAML's words for true, false and null."""
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    text = re.sub(r"//[^/@\s]+@", "//***@", text)  # who may use an address is nobody else's business
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def show_path(path: Path) -> str:
    """Write a path as `experiments[0].retrain.epochs`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if part.isprintable() and part else repr(part))
    return text


def problems_of(error: ValidationError, data: Any) -> list[Problem]:
    """Return the problems of a failed validation of `data`, with paths as `data` is written."""
    return [Problem(_written_path(detail, data), _text(detail)) for detail in error.errors(include_url=False)]


def _written_path(detail: ErrorDetails, data: Any) -> Path:
    """Drop what Pydantic adds to a location (the tags of unions) and the writer never wrote."""
    path: list[str | int] = []
    location = detail["loc"]
    for depth, part in enumerate(location):
        inside = part in data if isinstance(data, Mapping) else isinstance(data, list) and part in range(len(data))
        if inside:
            data = data[part]
            path.append(part)
        elif detail["type"] == "missing" and depth == len(location) - 1:
            path.append(part)
    if detail["type"] == "union_tag_invalid":
        path.append(detail["ctx"]["discriminator"].strip("'"))
    return tuple(path)


#: Names become folder names and MLflow tags: they cannot leave the storage folder.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

#: How the problem of a field that does not exist begins.
UNKNOWN = "unknown field"

#: How it begins with which values of a sweep something is wrong.
WITH = " (with "

#: What a value should have been, by the beginning of Pydantic's error type.
_EXPECTED = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_": "a finite number",
    "string_type": "text (quote it)",
    "bool_": "true or false",
    "list_": "a list",
    "tuple_": "a list",
    "dict_": "a mapping",
    "model_": "a mapping",
}

#: How a bound reads, by Pydantic's error type, which is also how Pydantic names the bound.
_BOUNDS = {
    "greater_than": ("gt", "must be above"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be below"),
    "less_than_equal": ("le", "must be at most"),
}


def _text(detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        return "missing"
    if kind == "value_error":
        return str(context["error"])
    if kind in ("literal_error", "union_tag_invalid"):
        expected = context.get("expected") or context["expected_tags"]
        choices = re.findall(r"'([^']*)'", expected)
        value = context.get("tag", value)
        # Numbers are not in quotes.
        return f"{show(value)} is not a choice; {nearest(str(value), choices) if choices else f'choose {expected}'}"
    if kind == "union_tag_not_found":
        return f"needs the field {context['discriminator']}"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{show(value)} {words} {context[name]:.12g}"
    for beginning, expected in _EXPECTED.items():
        if kind.startswith(beginning):
            return f"{show(value)} is not {expected}"
    if kind == "string_pattern_mismatch":
        if context["pattern"] == NAME:
            return f"{show(value)} is no name: letters, digits, '_', '.' and '-', at most 64"
        return f"{show(value)} does not match {context['pattern']}"
    if kind == "too_short" and context["min_length"] == 1:
        return "must not be empty"
    if kind in ("too_short", "too_long"):
        bound = "min_length" if kind == "too_short" else "max_length"
        return f"{show(value)} must have at {'least' if kind == 'too_short' else 'most'} {context[bound]} entries"
    if kind == "multiple_of":
        return f"{show(value)} must be a multiple of {context['multiple_of']}"
    return " ".join(detail["msg"].split())
