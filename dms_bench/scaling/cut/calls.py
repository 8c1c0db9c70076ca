"""Running a module's code with the sizes of a cut network; `tracing.calls` tells what is patched, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.space.elements import ShapeCall
from dms_bench.scaling.tracing.calls import Calls, asked_shape, expanded
from dms_bench.scaling.tracing.qkv import pack

#: What a dimension becomes: what the code asks for (None), a number, or the product of some
#: dimensions of the operand.
Size = int | list[int] | None


@dataclass(frozen=True)
class ShapePatch:
    """A `ShapeCall` after a cut: numbers in the place of elements."""

    call: str
    kind: str
    rank: int
    dim: int
    sizes: tuple[Size, ...]


class _PatchedCalls(Calls):
    """Gives the calls of one module's code the sizes of the cut network."""

    def __init__(self, module: nn.Module, patches: dict[str, ShapePatch]) -> None:
        super().__init__()
        self.patches = patches
        self.begin(module)

    def handle(self, module: nn.Module, call: str, kind: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Make the call with patched sizes."""
        patch = self.patches.get(call)
        if patch is None or {"packed": "reshape"}.get(patch.kind, patch.kind) != kind:
            return func(*args, **kwargs)
        if kind == "fill":
            return _shrunk(func(*args, **kwargs), patch)
        if args[0].dim() != patch.rank:
            return func(*args, **kwargs)
        operand = args[0]
        if kind == "split":
            return operand.split_with_sizes(list(patch.sizes), patch.dim)
        if kind == "slice":
            start, length = patch.sizes
            index = expanded(args[1], patch.rank) if func is Tensor.__getitem__ else None
            if index is not None:
                index[patch.dim] = slice(None)
                operand = operand[tuple(index)]
            return operand.narrow(patch.dim, start, length)
        asked = asked_shape(func, args)
        if patch.kind == "packed":
            *rows, heads = (size for size in patch.sizes if isinstance(size, int))
            before, after = asked[: patch.dim], asked[patch.dim + 3 :]
            return pack(operand, patch.dim, rows, [[*before, heads, number // heads, *after] for number in rows])
        if len(asked) != len(patch.sizes):
            return func(*args, **kwargs)
        return operand.reshape([_size(size, old, operand) for size, old in zip(patch.sizes, asked, strict=True)])


class PatchedForward:
    """Stands for a module's `forward`: its code runs with patched sizes, never compiled."""

    def __init__(self, module: nn.Module, patches: Sequence[ShapePatch]) -> None:
        self.module, self.patches = module, {patch.call: patch for patch in patches}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module."""
        with _PatchedCalls(self.module, self.patches):
            return type(self.module).forward(self.module, *args, **kwargs)


def _shrunk(filled: Tensor, patch: ShapePatch) -> Tensor:
    """Return a tensor of one number everywhere in the sizes of the cut network."""
    if filled.dim() != patch.rank:
        return filled
    for dim, size in enumerate(patch.sizes):
        filled = filled.narrow(dim, 0, size) if isinstance(size, int) else filled
    return filled.contiguous()


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


def patch_of(call: ShapeCall, kept: Callable[[Tensor], int]) -> ShapePatch:
    """Return the sizes of a call in a cut network.

    Args:
        call: the recorded call of a search space.
        kept: number of elements that stay.
    """
    sizes: list[Size] = []
    for dim, size in enumerate(call.sizes):
        if isinstance(size, Tensor):
            asked = dim in call.merged and bool((size < 0).all())
            sizes.append(None if asked else kept(size))
        else:
            sizes.append(size)
    return ShapePatch(call.call, call.kind, call.rank, call.dim, tuple(sizes))


def attach(module: nn.Module, patches: Sequence[ShapePatch]) -> None:
    """Let a module's code run with patched sizes."""
    module.__dict__["forward"] = PatchedForward(module, patches)
