"""What the fields of specifications are, in words: for the JSON Schema, for `dms-bench ls` and for tests.

A field is described by the string right below it, where pdoc finds it, too. Pydantic's own
`use_attribute_docstrings` reads these strings whenever a class is made, a fifth more for every command to
wait; here they are read when somebody asks.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache

from pydantic import BaseModel


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return what each field of a model is, on one line, empty where nobody has said it.

    A field that a subclass defines anew keeps its description unless it is given another.
    """
    return {name: _description(model, name) for name in model.model_fields}


def summary(model: type[BaseModel]) -> str:
    """Return the first paragraph of a model's own docstring on one line, empty where it has none."""
    return " ".join(inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0].split())


def _description(model: type[BaseModel], name: str) -> str:
    for ancestor in model.__mro__:
        if issubclass(ancestor, BaseModel) and name in ancestor.model_fields:
            given = ancestor.model_fields[name].description
            text = given or _docstrings(ancestor.__module__).get(ancestor.__qualname__, {}).get(name)
            if text:
                return " ".join(text.split())
    return ""


@cache
def _docstrings(module: str) -> dict[str, dict[str, str]]:
    """Return the strings below the fields of a module's classes: qualified name of the class -> field -> text."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError, SyntaxError):  # made in an interactive session, or shipped without source
        return {}
    return dict(_classes(tree, ""))


def _classes(node: ast.AST, prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield prefix + child.name, dict(_fields(child))
            yield from _classes(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef):
            yield from _classes(child, f"{prefix}{child.name}.<locals>.")


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in zip(node.body, node.body[1:], strict=False):
        described = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if described and isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = below.value.value  # type: ignore[attr-defined]
            if isinstance(text, str):
                yield field.target.id, text
