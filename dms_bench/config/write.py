"""A suite as text: fields in YAML, with the reason for each above it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from dms_bench.config.proposal import Choice

#: Characters of a line.
_WIDTH = 110


def commented(text: str, indent: int = 0) -> Iterator[str]:
    """Yield the lines of a comment."""
    # Names of files may hold bytes that are no text.
    for line in text.encode("utf-8", "backslashreplace").decode().splitlines():
        yield from textwrap.wrap(
            line, _WIDTH - indent, initial_indent=" " * indent + "# ", subsequent_indent=" " * indent + "# "
        ) or [" " * indent + "#"]


def fields(choices: Sequence[Choice], indent: int = 0) -> Iterator[str]:
    """Yield the lines of choices, nested as their paths are; those of one mapping stand together."""
    order: dict[str, list[Choice]] = {}
    for choice in choices:
        order.setdefault(choice.field.partition(".")[0], []).append(choice)
    for name, inside in order.items():
        for choice in inside:
            if choice.field == name and choice.why:
                yield from commented(choice.why, indent)
        if all(choice.field == name for choice in inside):
            yield f"{' ' * indent}{name}: {inline(inside[-1].value)}"
            continue
        yield f"{' ' * indent}{name}:"
        nested = [
            Choice(choice.field.partition(".")[2], choice.value, choice.why) for choice in inside if "." in choice.field
        ]
        yield from fields(nested, indent + 2)


def mapping(content: Mapping[str, Any], indent: int = 0) -> Iterator[str]:
    """Yield the lines of a mapping, a line for each field."""
    yield from fields([Choice(name, value) for name, value in content.items()], indent)


def as_mapping(text: str) -> dict[str, Any]:
    """Return what lines that were written here say."""
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def inline(value: Any) -> str:
    """Return a value as YAML on one line."""
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
