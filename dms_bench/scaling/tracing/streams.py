"""What blocks that return tuples answer when they are gone: streams that they add to, and what they only hand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor

from dms_bench.scaling.modules.blocks import ARGUMENT, FEATURES, NOTHING, OBJECT
from dms_bench.scaling.tracing.records import ModuleCall


def answers_of(call: ModuleCall, *, norms: bool) -> tuple[str, ...]:
    """Return what stands for each entry of the tuple that a call returned; nothing if it returned something else.

    Args:
        call: of a block.
        norms: an entry may reach the tuple through norms behind an addition as well.
    """
    if type(call.output) is not tuple:
        return ()
    return tuple(
        _answer(call, value, plain | normed if norms else plain)
        for value, (plain, normed) in zip(call.output, call.entries, strict=True)
    )


def adds_to_streams(call: ModuleCall, answers: tuple[str, ...]) -> bool:
    """Whether all tensors of a tuple are arguments of the call, to which it added something, to one at least."""
    if not answers:
        return False
    streams = [answer for value, answer in zip(call.output, answers, strict=True) if isinstance(value, Tensor)]
    return all(answer.startswith((FEATURES, ARGUMENT)) for answer in streams) and any(
        isinstance(value, Tensor) and not any(value is argument for argument in call.arguments.values())
        for value in call.output
    )


def tells_sizes(call: ModuleCall, answers: tuple[str, ...]) -> bool:
    """Whether a call told sizes beside its features that no argument has: nothing can stand for them."""
    return any(
        answer == NOTHING and isinstance(value, tuple | list) and len(value) > 0 and _whole(value)
        for value, answer in zip(call.output if answers else (), answers, strict=True)
    )


def _answer(call: ModuleCall, value: Any, reached: frozenset[int]) -> str:
    """Return what stands for one entry, which some tensors reach: of those the one that the call got last.

    A stream may have begun as another, behind an activation, and then both reach what is added to it.
    """
    first = next(iter(call.arguments), "")
    for key, argument in call.arguments.items():
        if _hands_on(argument, value):
            return FEATURES if key == first and isinstance(value, Tensor) else ARGUMENT + key
    reaching = {
        key: argument
        for key, argument in call.arguments.items()
        if isinstance(argument, Tensor)
        and isinstance(value, Tensor)
        and argument.shape == value.shape
        and id(argument) in reached
    }
    nearest = [
        key
        for key, argument in reaching.items()
        if not any(id(argument) in call.made_of[other] for other in reaching if reaching[other] is not argument)
    ]
    if nearest:
        return FEATURES if nearest[0] == first else ARGUMENT + nearest[0]
    return OBJECT if is_dataclass(value) else NOTHING


def _hands_on(argument: Any, value: Any) -> bool:
    """Whether an entry is an argument: a tensor or object itself, or the same sizes."""
    if isinstance(value, tuple | list):
        return type(argument) is type(value) and _whole(value) and argument == value
    return value is argument and isinstance(value, Tensor)


def _whole(sizes: Sequence[Any]) -> bool:
    return all(isinstance(size, int) for size in sizes)
