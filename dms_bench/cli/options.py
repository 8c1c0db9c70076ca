"""The options of a specification as a user writes them, read from its JSON Schema, and an example in YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from dms_bench.config.base import Spec
from dms_bench.config.plugins import PluginSpec

_WORDS = {
    "boolean": "true | false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "null": "null",
    "object": "mapping",
    "array": "list",
}
_BOUNDS = {
    "exclusiveMinimum": ">{}",
    "minimum": ">={}",
    "exclusiveMaximum": "<{}",
    "maximum": "<={}",
    "multipleOf": "a multiple of {}",
}
#: Fields whose one value names the mapping that they stand in.
_TAGS = ("kind", "name")

#: Characters of a line that fits every terminal.
_SHORT = 78

#: Option, type, default, meaning.
Row = tuple[str, str, str, str]


@dataclass(frozen=True)
class Section:
    """The options of one mapping."""

    title: str
    rows: list[Row]


def sections(model: type[Spec], title: str) -> list[Section]:
    """Return the options of a model, and those of every mapping inside of it.

    Args:
        model: a specification.
        title: what its mapping is called in a suite.
    """
    schema = model.model_json_schema()
    return list(_sections(schema, schema.get("$defs", {}), title))


def example(spec: type[PluginSpec], field: str) -> str:
    """Return fields of an experiment in YAML that use a plug-in; empty where it has to give them itself and does not.

    Args:
        spec: of the plug-in.
        field: `task` or `method`.
    """
    shown = spec.example
    if not shown:
        try:
            made = spec.model_validate({})
        except ValueError:
            return ""
        # Some of them are in no dump at their default, as trials from before there was a choice keep their hashes.
        options = {name: getattr(made, name) for name in type(made).model_fields} | made.model_dump(mode="json")
        shown = {field: options if len(options) > 1 else options["kind"]}
    return "\n".join(_lines(shown))


def _lines(fields: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Write a line for each option; mappings inside of it stand on the same line where that is short."""
    for name, value in fields.items():
        line = f"{indent}{name}: {_inline(value)}"
        if isinstance(value, dict) and (not indent or len(line) > _SHORT):
            yield f"{indent}{name}:"
            yield from _lines(value, f"{indent}  ")
        else:
            yield line


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()


def _sections(schema: dict[str, Any], defs: dict[str, Any], title: str) -> Iterator[Section]:
    properties = schema.get("properties", {})
    shown = {name: value for name, value in properties.items() if not (name in _TAGS and "const" in value)}
    needed = schema.get("required", ())
    yield Section(title, [_row(name, value, name in needed, defs) for name, value in shown.items()])
    for name, value in shown.items():
        members = list(_members(value, defs))
        for member in members:
            suffix = f" ({member['title']})" if len(members) > 1 else ""
            yield from _sections(member, defs, f"{title}.{name}{suffix}")


def _row(name: str, value: dict[str, Any], needed: bool, defs: dict[str, Any]) -> Row:
    default = value.get("default", {} if value.get("type") == "object" else "")
    if needed:
        text = "to be given"
    elif isinstance(default, dict) and any(_members(value, defs)):
        text = ""  # the options of the mapping have their own
    elif isinstance(default, str):
        text = default if default or "default" not in value else "''"
        text = text if text.isprintable() else json.dumps(text)
    else:
        text = _inline(default)
    return name, _words(value, defs), text, value.get("description", "")


def _members(value: dict[str, Any], defs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the mappings with fields of their own that a value may be or hold."""
    if "$ref" in value:
        yield defs[value["$ref"].rpartition("/")[2]]
    for inner in (*value.get("anyOf", ()), *value.get("oneOf", ()), *([value["items"]] if "items" in value else ())):
        yield from _members(inner, defs)


def _words(value: dict[str, Any], defs: dict[str, Any]) -> str:
    if "const" in value:
        return str(value["const"])
    if "enum" in value:
        return " | ".join(map(str, value["enum"]))
    if "$ref" in value:
        return _words({"type": "object"}, defs)
    choices = [*value.get("anyOf", ()), *value.get("oneOf", ())]
    if choices:
        return " | ".join(dict.fromkeys(_words(choice, defs) for choice in choices))
    kind = value.get("type")
    words = _WORDS.get(str(kind), "anything")
    if kind == "array" and "prefixItems" in value:
        return f"list of {len(value['prefixItems'])}: {', '.join(_words(item, defs) for item in value['prefixItems'])}"
    if kind == "array" and "items" in value:
        return f"list of: {_words(value['items'], defs)}"
    bounds = " ".join(word.format(f"{value[key]:g}") for key, word in _BOUNDS.items() if key in value)
    like = f"such as {value['examples'][0]}" if value.get("examples") else ""
    return " ".join(part for part in (words, bounds, like) if part)
