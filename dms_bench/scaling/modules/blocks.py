"""Removable blocks: which one a name lies in, the features that go in and come out, and what one answers when gone.

What a removed block answers in the place of a tuple is written down for each entry: `FEATURES` are its first argument,
an argument has its position or name behind `ARGUMENT`, `OBJECT` has every attribute without a value, `NOTHING` is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

FEATURES, OBJECT, NOTHING, ARGUMENT = "features", "object", "nothing", "argument "


def block_of(name: str, blocks: Sequence[str]) -> int:
    """Return the index of the block that a module or parameter lies in, or -1."""
    for index, block in enumerate(blocks):
        if name == block or name.startswith(block + "."):
            return index
    return -1


def entry_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the first argument of a call, if it is a tensor."""
    first = next(iter((*args, *kwargs.values())), None)
    return first if isinstance(first, Tensor) else None


def with_entry(args: Sequence[Any], kwargs: Mapping[str, Any], entry: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call with another first one."""
    if args:
        return (entry, *args[1:]), dict(kwargs)
    return (), {**kwargs, next(iter(kwargs)): entry}


def features_of(output: Any) -> Tensor | None:
    """Return what a block hands on: its output, or the first of a tuple (beside weights of attention, or nothing)."""
    first = output[0] if type(output) is tuple and output else output
    return first if isinstance(first, Tensor) else None


def with_features(output: Any, features: Tensor) -> Any:
    """Return a block's output with other features."""
    return (features, *output[1:]) if type(output) is tuple else features


def argument_of(args: Sequence[Any], kwargs: Mapping[str, Any], answer: str) -> Any:
    """Return the argument of a call that an entry is answered with; None for entries without.

    Raises:
        ValueError: the call has no such argument.
    """
    if answer == FEATURES:
        return entry_of(args, kwargs)
    if not answer.startswith(ARGUMENT):
        return None
    key = answer.removeprefix(ARGUMENT)
    if key in kwargs:
        return kwargs[key]
    if key.isdigit() and int(key) < len(args):
        return args[int(key)]
    raise ValueError(f"a removable block was traced with its {answer}, and is called without: hand it over as then")
