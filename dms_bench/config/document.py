"""YAML files as plain data, strictly: one meaning per file, and nothing but what JSON can hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from dms_bench.config.problems import show
from dms_bench.errors import UserError, nearest

#: Anchors may blow a small file up; no suite comes near this many values.
MAX_VALUES = 100_000
#: Of a whole number; one with more is none that a computer counts with.
MAX_DIGITS = 100
#: Mappings and lists within one another.
MAX_DEPTH = 50


class _RefusedError(Exception):
    """Something that YAML allows and a suite does not."""

    def __init__(self, text: str, node: Node) -> None:
        super().__init__(f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}: {text}")


class _Loader(yaml.SafeLoader):
    """YAML's plain types only: dates stay text, and sets, binary data and objects are refused."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


def read_document(path: Path) -> Any:
    """Return the content of a YAML file as mappings, lists, text, numbers, booleans and None.

    Raises:
        UserError: no such file (with the nearest name), not UTF-8, not YAML (with line and column),
            a key that occurs twice, values that JSON does not have, or nested without end.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {_nearest_file(path)}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start + 1})") from None
    try:
        return read_value(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_value(text: str) -> Any:
    """Return what a text in YAML says, as strictly as a file.

    Raises:
        UserError: as of `read_document`, without a path.
    """
    try:
        return _load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UserError(" ".join(str(error).split())) from None
    except (RecursionError, _RefusedError, ValueError) as error:
        raise UserError("nested too deeply" if isinstance(error, RecursionError) else str(error)) from None


def _load(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, {}, 0)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check(node: Node, sizes: dict[int, int], depth: int) -> int:
    """Refuse what has no plain meaning; return the number of values under `node`, anchors followed."""
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise _RefusedError("an anchor that contains itself", node)
        return sizes[id(node)]
    if depth > MAX_DEPTH:
        raise _RefusedError(f"nested more than {MAX_DEPTH} deep", node)
    if node.tag not in _PLAIN:
        raise _RefusedError(f"unknown tag {node.tag}", node)
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, ScalarNode):
        _check_text(node)
        if node.tag.endswith((":int", ":float")):
            _check_number(node)
    elif isinstance(node, SequenceNode):
        size += sum(_check(item, sizes, depth + 1) for item in node.value)
    elif isinstance(node, MappingNode):
        _check_keys(node)
        size += sum(_check(item, sizes, depth + 1) for pair in node.value for item in pair)
    if size > MAX_VALUES:
        raise _RefusedError(f"more than {MAX_VALUES} values", node)
    sizes[id(node)] = size
    return size


def _check_text(node: ScalarNode) -> None:
    try:
        node.value.encode()
    except UnicodeEncodeError:
        raise _RefusedError(f"{show(node.value)} is not text", node) from None


def _check_number(node: ScalarNode) -> None:
    if len(node.value) > MAX_DIGITS:
        raise _RefusedError(f"a number of {len(node.value)} digits", node)
    if ":" in node.value:
        raise _RefusedError(f"{node.value} is a number of base 60 to YAML: quote it", node)
    if node.tag.endswith(":int") and re.match("[-+]?0[0-9_]", node.value):
        raise _RefusedError(f"{node.value} is an octal number to YAML: leave out the zero in front", node)


def _check_keys(node: MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if key.tag.endswith(":merge"):
            continue
        if not key.tag.endswith(":str"):
            written = show(key.value) if isinstance(key, ScalarNode) else "of a mapping"
            raise _RefusedError(f"the key {written} is not text; quote it", key)
        if key.value in seen:
            raise _RefusedError(f"the key {show(key.value)} occurs twice", key)
        seen.add(key.value)


def _nearest_file(path: Path) -> str:
    """Return a phrase with the suite files that the missing one may have been."""
    # Below the file's own folder there may be anything: an environment, a whole disk.
    beside = path.parent.glob("*.y*ml") if path.parent.is_dir() else ()
    suites = {str(file) for file in sorted((*beside, *Path("benchmarks").rglob("*.y*ml")))}
    if not suites:
        return f"no YAML files in {path.parent}"
    by_name = {Path(file).name: file for file in suites}
    phrase = nearest(path.name, by_name)
    for name, file in by_name.items():
        phrase = phrase.replace(f"'{name}'", f"'{file}'")
    return phrase
