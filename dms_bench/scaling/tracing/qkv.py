"""Queries, keys and values of one layer, with sizes of their own.

`qkv.reshape(B, N, 3, heads, size).permute(2, 0, 3, 1, 4).unbind(0)`: a tensor has one size for all three. Where a
module's code makes such a tensor, it gets `PackedQKV` in its place, while the supernet is traced (so that queries
and keys on one side and values on the other have labels of their own) and in cut networks (where their sizes differ).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only


class PackedQKV:
    """Stands for a tensor whose slices along one dimension may have different sizes.

    It can be permuted and unbound. For everything else it becomes the tensor, which takes equal sizes; while a
    supernet is traced they are, and what is joined then is one element from there on, so that it stays equal.

    Args:
        slices: the tensor's slices, without the dimension.
        dim: the dimension: of queries, keys and values.
    """

    def __init__(self, slices: Sequence[Tensor], dim: int) -> None:
        self.slices, self.packed_dim = tuple(slices), dim

    def whole(self) -> Tensor:
        """Return the tensor."""
        return torch.stack(self.slices, self.packed_dim)

    def permute(self, *dims: Any) -> PackedQKV:
        """Like `Tensor.permute`."""
        given = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
        order = [dim % len(given) for dim in given]
        inner = [dim - (dim > self.packed_dim) for dim in order if dim != self.packed_dim]
        return PackedQKV([tensor.permute(inner) for tensor in self.slices], order.index(self.packed_dim))

    def transpose(self, dim0: int, dim1: int) -> PackedQKV:
        """Like `Tensor.transpose`."""
        order = list(range(self.slices[0].dim() + 1))
        order[dim0], order[dim1] = order[dim1], order[dim0]
        return self.permute(order)

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """Like `Tensor.unbind`."""
        rank = self.slices[0].dim() + 1
        return self.slices if dim % rank == self.packed_dim else self.whole().unbind(dim)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.unbind())

    def __getitem__(self, index: Any) -> Tensor:
        return self.slices[index] if isinstance(index, int) and self.packed_dim == 0 else self.whole()[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("slices", "packed_dim"):
            raise AttributeError(name)
        return getattr(self.whole(), name)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is torch.unbind:
            return args[0].unbind(*args[1:], **(kwargs or {}))
        args, kwargs = tree_map_only(PackedQKV, PackedQKV.whole, (args, dict(kwargs or {})))
        return func(*args, **kwargs)


def _by_whole(name: str) -> Callable[..., Any]:
    return lambda packed, *operands: getattr(packed.whole(), name)(*operands)


# Python looks for operators in the class alone.
for _name in ("add", "sub", "mul", "truediv", "matmul", "pow"):
    for _operator in (f"__{_name}__", f"__r{_name}__"):
        setattr(PackedQKV, _operator, _by_whole(_operator))
setattr(PackedQKV, "__neg__", _by_whole("__neg__"))  # noqa: B010


def pack(operand: Tensor, dim: int, rows: Sequence[int], shapes: Sequence[Sequence[int]]) -> PackedQKV:
    """Split a layer's output into queries, keys and values, and the features of each into heads.

    Args:
        operand: the output; its features lie along `dim`.
        dim: where queries, keys and values lie one after another, and behind each other in the result.
        rows: features of each of them.
        shapes: of each of them, in full.
    """
    pieces = operand.split_with_sizes(list(rows), dim)
    return PackedQKV([piece.reshape(*shape) for piece, shape in zip(pieces, shapes, strict=True)], dim)
