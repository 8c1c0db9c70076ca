"""Running a module's code with the sizes of a cut network; `views` tells what is mended, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.space.elements import View
from dms_bench.scaling.tracing.calls import Calls, asked_shape, expanded
from dms_bench.scaling.tracing.qkv import apart

#: What a dimension becomes: what the code asks for (None), a number, or the product of some
#: dimensions of the operand.
Size = int | list[int] | None


@dataclass(frozen=True)
class Mend:
    """A `View` after a cut: numbers in the place of labels."""

    call: str
    kind: str
    rank: int
    dim: int
    sizes: tuple[Size, ...]


class _MendViews(Calls):
    """Gives the calls of one module's code the sizes of the cut network."""

    def __init__(self, module: nn.Module, mends: dict[str, Mend]) -> None:
        super().__init__()
        self.mends = mends
        self.begin(module)

    def handle(self, module: nn.Module, call: str, kind: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Make the call with mended sizes."""
        mend = self.mends.get(call)
        if mend is None or {"parts": "reshape"}.get(mend.kind, mend.kind) != kind or args[0].dim() != mend.rank:
            return func(*args, **kwargs)
        operand = args[0]
        if kind == "split":
            return operand.split_with_sizes(list(mend.sizes), mend.dim)
        if kind == "slice":
            start, length = mend.sizes
            index = expanded(args[1], mend.rank) if func is Tensor.__getitem__ else None
            if index is not None:
                index[mend.dim] = slice(None)
                operand = operand[tuple(index)]
            return operand.narrow(mend.dim, start, length)
        asked = asked_shape(func, args)
        if mend.kind == "parts":
            *rows, heads = (size for size in mend.sizes if isinstance(size, int))
            before, after = asked[: mend.dim], asked[mend.dim + 3 :]
            return apart(operand, mend.dim, rows, [[*before, heads, own // heads, *after] for own in rows])
        if len(asked) != len(mend.sizes):
            return func(*args, **kwargs)
        return operand.reshape([_size(size, own, operand) for size, own in zip(mend.sizes, asked, strict=True)])


class MendedForward:
    """Stands for a module's `forward`: its code runs with mended sizes, never compiled."""

    def __init__(self, module: nn.Module, mends: Sequence[Mend]) -> None:
        self.module, self.mends = module, {mend.call: mend for mend in mends}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module."""
        with _MendViews(self.module, self.mends):
            return type(self.module).forward(self.module, *args, **kwargs)


def _size(size: Size, asked: int, operand: Tensor) -> int:
    if size is None:
        return asked
    if isinstance(size, int):
        return size
    if list(size) == [-1]:
        return -1
    product = 1
    for dim in size:
        product *= operand.size(dim)
    return product


def mend(view: View, kept: Callable[[Tensor], int]) -> Mend:
    """Return the sizes of a call in a cut network.

    Args:
        view: the recorded call of a search space.
        kept: number of elements that stay.
    """
    sizes: list[Size] = [kept(size) if isinstance(size, Tensor) else size for size in view.sizes]
    return Mend(view.call, view.kind, view.rank, view.dim, tuple(sizes))


def attach(module: nn.Module, mends: Sequence[Mend]) -> None:
    """Let a module's code run with mended sizes."""
    module.__dict__["forward"] = MendedForward(module, mends)
