"""Sizes in a model's code that a cut has to change: of reshapes, splits and slices.

`x.reshape(B, N, 3, self.num_heads, C // self.num_heads)`: such sizes stand in code, where a cut cannot
reach them. While the supernet is traced, every such call is recorded with the labels of the sizes that
come out (where one splits queries, keys and values that a layer makes, `PackedQKV` comes out); in the cut
network the `forward` of modules whose code asks for wrong sizes is wrapped and hands on right ones. A size
is changed only where it is the size of labelled elements or split off from them; what depends on the input
(batch, tokens, positions) stays as the code computes it.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dms_bench.scaling.space.elements import ShapeCall
from dms_bench.scaling.tracing.qkv import PackedQKV, pack

_RESHAPES = {"reshape", "view", "unflatten", "reshape_as", "view_as"}
_SPLITS = {"split", "chunk", "split_with_sizes", "tensor_split"}
_SLICES = {"__getitem__", "narrow"}
#: What has one number everywhere, and sizes that stand in the code (first states of recurrent networks).
FILLS = {"zeros", "ones", "full", "new_zeros", "new_ones", "new_full"}
_KINDS = {
    getattr(owner, name): kind
    for kind, names in (("reshape", _RESHAPES), ("split", _SPLITS), ("slice", _SLICES), ("fill", FILLS))
    for name in names
    for owner in (Tensor, torch)
    if hasattr(owner, name)
}

_FORWARD = nn.Module._call_impl.__code__


class Calls(TorchFunctionMode):
    """Counts the calls that a module's own code makes."""

    def __init__(self) -> None:
        super().__init__()
        #: How often each line ran, by module.
        self.counts: dict[int, dict[str, int]] = {}

    def begin(self, module: nn.Module) -> None:
        """A forward pass of a module begins."""
        self.counts[id(module)] = {}

    def handle(self, module: nn.Module, call: str, kind: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Make a call of a kind that holds sizes; as it is, unless a subclass looks at it or changes it."""
        return func(*args, **kwargs)

    def attend(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Make a call of torch's own attention."""
        return func(*args, **kwargs)

    def attend_whole(self, args: Any, kwargs: Any) -> None:
        """Torch's attention is about to run with the projections around it, as one function."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self.attend(func, args, kwargs)
        if func is functional.multi_head_attention_forward:
            self.attend_whole(args, kwargs)
        kind = _KINDS.get(func)
        if kind == "reshape" and len(args) == 1 and len(kwargs) == 1 and set(kwargs) <= {"shape", "size"}:
            args, kwargs = (*args, *kwargs.values()), {}
        module = _caller() if kind is not None else None
        if kind is None or module is None or id(module) not in self.counts:
            return func(*args, **kwargs)
        frame = sys._getframe(1)
        line = f"{frame.f_code.co_name}+{frame.f_lineno - frame.f_code.co_firstlineno}"
        counts = self.counts[id(module)]
        counts[line] = counts.get(line, -1) + 1
        return self.handle(module, f"{line}#{counts[line]}", kind, func, args, kwargs)


def _caller() -> nn.Module | None:
    """Return the module whose forward pass is running; methods of others that it uses belong to it."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code is _FORWARD:
            owner = frame.f_locals["self"]
            assert isinstance(owner, nn.Module)
            return owner
        frame = frame.f_back
    return None


class ShapeCallRecorder(Calls):
    """Records the calls of a traced forward pass.

    Args:
        names: of the modules, by id.
        labels_along: labels along a dimension of a tensor, or None.
        pack_qkv: give queries, keys and values that one layer makes sizes of their own.
        keep: called with tensors whose sizes a function takes for granted.
    """

    def __init__(
        self,
        names: dict[int, str],
        labels_along: Callable[[Tensor, int], Tensor | None],
        pack_qkv: bool,
        keep: Callable[..., None],
    ) -> None:
        super().__init__()
        self.shape_calls: dict[str, list[ShapeCall]] = {}
        self._names, self._labels_along, self._pack_qkv, self._keep = names, labels_along, pack_qkv, keep
        self._done: set[int] = set()
        #: Whether torch's own attention is running, and divides by the square root of the size that it sees.
        self.divides = False

    def attend(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Let torch's own attention run."""
        self.divides = kwargs.get("scale") is None
        try:
            return func(*args, **kwargs)
        finally:
            self.divides = False

    def attend_whole(self, args: Any, kwargs: Any) -> None:
        """Keep what torch's function reads: it takes its input's size for that of all heads."""
        arguments = inspect.signature(functional.multi_head_attention_forward).bind(*args, **kwargs).arguments
        self._keep(*(value for name, value in arguments.items() if not name.startswith("out_proj")))

    def begin(self, module: nn.Module) -> None:
        """A forward pass of a module begins; the first one is recorded."""
        if id(module) in self.counts:
            self._done.add(id(module))
        super().begin(module)

    def handle(self, module: nn.Module, call: str, kind: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Let the call pass and note what came out."""
        plain = kind == "reshape" and len(args) > 1 and not kwargs and not isinstance(args[1], torch.dtype)
        packed = self._packed_shape(module, func, args) if plain and self._pack_qkv else None
        if packed is not None:
            return self._pack(module, call, args[0], *packed)
        out = func(*args, **kwargs)
        if id(module) not in self._done and id(module) in self._names:
            note: Callable[..., ShapeCall | None] = getattr(self, f"_{kind}")
            shape_call = note(call, args, out)
            if shape_call is not None:
                self.shape_calls.setdefault(self._names[id(module)], []).append(shape_call)
        return out

    def _packed_shape(self, module: nn.Module, func: Any, args: Any) -> tuple[int, list[int]] | None:
        """Return the dimension that a reshape splits into (2 or 3, heads, size), and its shape, where it does."""
        operand, shape = args[0], asked_shape(func, args)
        if shape.count(-1) == 1:
            shape[shape.index(-1)] = operand.numel() // -math.prod(shape)
        for ins, outs in matching_dims(operand.shape, shape):
            if len(outs) != 3 or ins[0] != outs[0] or math.prod(operand.shape[dim] for dim in ins[1:]) > 1:
                continue
            number, heads, _ = (shape[dim] for dim in outs)
            if number in (2, 3) and heads in head_counts(module) and self._labels_along(operand, ins[0]) is not None:
                return ins[0], shape
        return None

    def _pack(self, module: nn.Module, call: str, operand: Tensor, dim: int, shape: list[int]) -> PackedQKV:
        number, heads = shape[dim : dim + 2]
        rows = operand.size(dim) // number
        unpacked = [*shape[:dim], *shape[dim + 1 :]]
        packed = pack(operand, dim, [rows] * number, [unpacked] * number)
        labels = self._labels_along(operand, dim)
        if id(module) not in self._done and id(module) in self._names and labels is not None:
            of_heads = self._labels_along(packed.slices[0], dim)
            of_heads = torch.zeros(heads, dtype=torch.long) if of_heads is None else of_heads
            shape_call = ShapeCall(call, "packed", operand.dim(), dim, (*labels.view(number, rows), of_heads))
            self.shape_calls.setdefault(self._names[id(module)], []).append(shape_call)
        return packed

    def _reshape(self, call: str, args: Any, out: Tensor) -> ShapeCall | None:
        operand = args[0]
        sizes: list[Tensor | list[int] | None] = [None] * out.dim()
        among_others: list[int] = []
        # A dimension of one (a single window of an image) may become part of either neighbour: only the code knows.
        unclear = 1 in operand.shape or 1 in out.shape
        for ins, outs in matching_dims(operand.shape, out.shape):
            labels = {dim: self._labels_along(out, dim) for dim in outs}
            if all(along is None for along in labels.values()) and not any(
                self._labels_along(operand, dim) is not None for dim in ins
            ):
                if len(outs) == 1 and not unclear:
                    sizes[outs[0]] = ins
                continue  # else batch, tokens or positions alone
            if len(outs) == 1:
                sizes[outs[0]] = [dim for dim in ins if operand.size(dim) > 1] or ins
                continue
            wide = [dim for dim in outs if out.size(dim) > 1]
            if len(wide) == 1 and len([dim for dim in ins if operand.size(dim) > 1]) > 1:
                # Beside new dimensions of one, all that is merged lies in a single one (samples as groups of a
                # convolution), however many samples there are.
                for dim in outs:
                    sizes[dim] = ins if dim in wide else []
                continue
            # Labels that repeat were merged with the batch or positions, which only the code knows.
            merged = len(ins) == 1 and _repeats(self._labels_along(operand, ins[0]))
            among_others += outs if merged else []
            for index, dim in enumerate(outs):
                along = labels[dim]
                fixed = None if merged else torch.zeros(out.size(dim), dtype=torch.long)
                # Where more is merged into the first one, its size is whatever the others leave.
                sizes[dim] = [-1] if len(ins) > 1 and index == 0 else fixed if along is None else along
        if all(size is None for size in sizes):
            return None
        return ShapeCall(call, "reshape", operand.dim(), 0, tuple(sizes), tuple(among_others))

    def _fill(self, call: str, args: Any, out: Tensor) -> ShapeCall | None:
        sizes = tuple(self._labels_along(out, dim) for dim in range(out.dim()))
        found = any(size is not None for size in sizes)
        return ShapeCall(call, "fill", out.dim(), 0, sizes, tuple(range(out.dim()))) if found else None

    def _split(self, call: str, args: Any, out: Sequence[Tensor]) -> ShapeCall | None:
        operand = args[0]
        for dim in range(operand.dim()):
            whole = self._labels_along(operand, dim)
            if whole is not None and any(piece.size(dim) != operand.size(dim) for piece in out):
                pieces = torch.split(whole, [piece.size(dim) for piece in out])  # type: ignore[no-untyped-call]
                return ShapeCall(call, "split", operand.dim(), dim, tuple(pieces))
        return None

    def _slice(self, call: str, args: Any, out: Tensor) -> ShapeCall | None:
        operand = args[0]
        if out.dim() != operand.dim():
            return None
        for dim in range(operand.dim()):
            whole = self._labels_along(operand, dim)
            if whole is None or out.size(dim) == operand.size(dim):
                continue
            bounds = _bounds(args, dim, operand.dim())
            if bounds is None:
                return None
            start, stop, _ = bounds.indices(operand.size(dim))
            return ShapeCall(call, "slice", operand.dim(), dim, (whole[:start], whole[start:stop]))
        return None


def asked_shape(func: Any, args: Any) -> list[int]:
    """Return the shape that a reshape's code asks for."""
    if func in (Tensor.unflatten, torch.unflatten):
        operand, dim, sizes = args
        dim %= operand.dim()
        return [*operand.shape[:dim], *sizes, *operand.shape[dim + 1 :]]
    if isinstance(args[1], Tensor):  # `reshape_as`
        return list(args[1].shape)
    return list(args[1]) if len(args) == 2 and not isinstance(args[1], int) else list(args[1:])


def head_counts(module: nn.Module) -> set[int]:
    """Return the integers of a module that are numbers of heads, by their names."""
    known = vars(module).items()
    return {value for key, value in known if "head" in key and "dim" not in key and type(value) is int and value > 0}


def sizes_kept(module: nn.Module) -> set[int]:
    """Return the integers of a module that may be sizes of its features."""
    return {value for value in vars(module).values() if type(value) is int and value > 1}


def _repeats(labels: Tensor | None) -> bool:
    return labels is not None and len(torch.unique(labels)) < len(labels)


def _bounds(args: Any, dim: int, rank: int) -> slice | None:
    """Return the slice that a call takes along a dimension, where it is a simple one."""
    if len(args) == 4:  # narrow
        return slice(args[2], args[2] + args[3])
    index = expanded(args[1], rank)
    bounds = index[dim] if index is not None else None
    return bounds if isinstance(bounds, slice) and bounds.step in (None, 1) else None


def expanded(index: Any, rank: int) -> list[Any] | None:
    """Write an index of slices alone with one entry per dimension; None for other indices."""
    entries = list(index) if isinstance(index, tuple) else [index]
    if any(not isinstance(entry, slice) and entry is not Ellipsis for entry in entries):
        return None
    if Ellipsis in entries:
        ellipsis = entries.index(Ellipsis)
        entries[ellipsis : ellipsis + 1] = [slice(None)] * (rank - len(entries) + 1)
    return entries + [slice(None)] * (rank - len(entries))


def matching_dims(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return the groups of dimensions of a reshape's operand and result that hold the same elements."""
    result: list[tuple[list[int], list[int]]] = []
    next_in, next_out = 0, 0
    while next_in < len(before) and next_out < len(after):
        ins, outs = [next_in], [next_out]
        left, right = before[next_in], after[next_out]
        next_in, next_out = next_in + 1, next_out + 1
        while left != right:
            if left < right:
                left *= before[next_in]
                ins.append(next_in)
                next_in += 1
            else:
                right *= after[next_out]
                outs.append(next_out)
                next_out += 1
        result.append((ins, outs))
    # Dimensions of size one at the end belong to the last group.
    if result:
        result[-1][0].extend(range(next_in, len(before)))
        result[-1][1].extend(range(next_out, len(after)))
    return result
