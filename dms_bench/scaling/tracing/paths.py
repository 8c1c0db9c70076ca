"""What reaches a tensor unchanged: the identity paths of residual blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dms_bench.scaling.tracing.operators import RESIDUAL_OPERATORS

#: Ids of the tensors that reach another; and those of them to which something was added on the way.
_Reach = tuple[frozenset[int], frozenset[int]]
_NOTHING: _Reach = (frozenset(), frozenset())
#: Operators that take a tensor apart along one dimension.
_SLICING = ("slice", "narrow", "split", "split_with_sizes")
#: Operators with which norms scale and shift what they get, by something that has fewer numbers.
_NORMALISING = ("mul", "div", "add", "sub")


class ResidualPaths:
    """Follows tensors, by their ids, through additions, activations, scaling and norms; the tracer keeps them alive."""

    def __init__(self) -> None:
        #: Tensors that reach another unchanged but for additions: id -> ids of ancestors.
        self._added_to: dict[int, frozenset[int]] = {}
        #: Tensors that reach another through norms as well.
        self._normed: dict[int, _Reach] = {}
        #: Tensors that reach another through norms, also written out or conditioned ones (scaled and shifted).
        self._modulated: dict[int, _Reach] = {}
        #: What was concatenated: id -> shape, dimension, operands.
        self._joins: dict[int, tuple[Sequence[int], int, list[Tensor]]] = {}

    def of(self, tensor: Tensor | None) -> tuple[frozenset[int], frozenset[int]]:
        """Return the ids of what reaches a tensor without norms, and of what does through norms behind an addition."""
        return self._added_to.get(id(tensor), frozenset()), self._normed.get(id(tensor), _NOTHING)[1]

    def made_of(self, entry: Tensor, stream: Tensor) -> bool:
        """Whether a tensor is the stream, or what that is a sum with, but for norms; nothing was added on the way."""
        reached, joined = self._modulated.get(id(entry), _NOTHING)
        shared = (reached | {id(entry)}) & (self._added_to.get(id(stream), frozenset()) | {id(stream)})
        return bool(shared) and joined <= self._modulated.get(id(stream), _NOTHING)[1]

    def track(self, name: str, operands: list[Tensor], out: Any) -> None:
        """An addition keeps both operands as ancestors; what only reshapes, activates or scales keeps its own."""
        operator = name.rstrip("_")
        if operator in _SLICING:
            for piece in [out] if isinstance(out, Tensor) else out:
                self._sliced(operands[0], piece)
        if not isinstance(out, Tensor):
            return
        if operator == "cat" and all(operand.dim() == out.dim() for operand in operands):
            differ = [dim for dim in range(out.dim()) if operands[0].size(dim) != out.size(dim)]
            if len(differ) == 1:
                self._joins[id(out)] = (out.shape, differ[0], operands)
        whole = [operand for operand in operands if _numbers(operand) == out.shape.numel()]
        modulates = operator in _NORMALISING and len(operands) == 2 and len(whole) == 1
        if modulates:
            _reach(self._modulated, whole[0], out, added=False)
        scales = operator in ("mul", "div") and len(operands) == 1
        if not (scales or operator in RESIDUAL_OPERATORS):
            return
        ancestors: frozenset[int] = frozenset()
        for operand in operands if operator == "add" else operands[:1]:
            if operand.shape.numel() == out.shape.numel():
                ancestors |= self._added_to.get(id(operand), frozenset()) | {id(operand)}
                _reach(self._normed, operand, out, added=operator == "add")
                if not modulates:
                    _reach(self._modulated, operand, out, added=operator == "add")
        self._added_to[id(out)] = ancestors

    def _sliced(self, operand: Tensor, out: Tensor) -> None:
        """Note what reaches one piece of a tensor: of what was concatenated, what lies there."""
        differ = [dim for dim in range(out.dim()) if operand.dim() == out.dim() and operand.size(dim) != out.size(dim)]
        if len(differ) != 1:
            return
        ancestors: frozenset[int] = frozenset()
        start = (out.storage_offset() - operand.storage_offset()) // max(operand.stride(differ[0]), 1)
        for ancestor in self._added_to.get(id(operand), frozenset()) | {id(operand)}:
            shape, dim, joined = self._joins.get(ancestor, ((), -1, []))
            if shape != operand.shape or dim != differ[0]:
                continue
            before = 0
            for part in joined:
                if before == start and part.shape == out.shape:
                    ancestors |= self._added_to.get(id(part), frozenset()) | {id(part)}
                before += part.size(dim)
        self._added_to[id(out)] = ancestors

    def normalised(self, operand: Tensor, out: Tensor) -> None:
        """Note that a norm made a result of an operand."""
        _reach(self._normed, operand, out, added=False)
        _reach(self._modulated, operand, out, added=False)


def _numbers(tensor: Tensor) -> int:
    """Return how many numbers a tensor holds, those once that it repeats."""
    if tensor.layout != torch.strided:
        return tensor.numel()
    return math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)


def _reach(paths: dict[int, _Reach], operand: Tensor, out: Tensor, added: bool) -> None:
    reached, joined = paths.get(id(operand), _NOTHING)
    reached |= {id(operand)}
    others, also_joined = paths.get(id(out), _NOTHING)
    paths[id(out)] = (others | reached, also_joined | (reached if added else joined))
