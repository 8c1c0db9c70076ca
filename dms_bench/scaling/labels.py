"""Labels of tensor elements, and the classes into which operators unite them.

Every index along every dimension of every parameter gets an integer label. An *axis* of a tensor is
a tensor of labels of the same shape: the slice that an element belongs to. An activation usually
has one axis (its channels), a weight matrix two (rows and columns), a tensor without labels none.
Axes are stored expanded (stride 0) along the dimensions in which they do not vary, so that every
operator that only moves elements can be applied to the labels as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: The label of whatever has none in a labelled axis (padding, constants): it is never removed.
FIXED = 0

Axes = tuple[Tensor, ...]


class Labels:
    """Union-find over labels. Uniting a label with `FIXED` freezes its whole class."""

    def __init__(self) -> None:
        self._parent = [FIXED]
        #: Why a class was frozen, for the report; the first reason of a label stays.
        self.reasons: dict[int, str] = {}

    def fresh(self, count: int) -> Tensor:
        """Return `count` new labels, [count]."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def find(self, label: int) -> int:
        """Return the representative of a label's class; `FIXED` for frozen classes."""
        parent = self._parent
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    def unite(self, left: Tensor, right: Tensor) -> None:
        """Unite the classes of two label tensors of one shape, element by element."""
        for dim in range(left.dim()):
            if left.stride(dim) == 0 and right.stride(dim) == 0:
                left, right = left.narrow(dim, 0, 1), right.narrow(dim, 0, 1)
        pairs = torch.stack([left.flatten(), right.flatten()], dim=1)
        for a, b in torch.unique(pairs, dim=0).tolist():
            low, high = sorted((self.find(a), self.find(b)))
            if low != high:
                self._parent[high] = low  # FIXED is the lowest, so it always becomes the root

    def freeze(self, axis: Tensor, reason: str) -> None:
        """Exclude the classes of all labels of an axis from the search."""
        for dim in range(axis.dim()):
            if axis.stride(dim) == 0:
                axis = axis.narrow(dim, 0, 1)
        for label in torch.unique(axis).tolist():
            root = self.find(label)
            if root != FIXED:
                self.reasons.setdefault(root, reason)
                self._parent[root] = FIXED


def varying_dims(axis: Tensor) -> list[int]:
    """Return the dimensions along which an axis' labels differ."""
    return [dim for dim in range(axis.dim()) if axis.size(dim) > 1 and axis.stride(dim) != 0]


def canonical(axis: Tensor) -> Tensor:
    """Return the axis with stride 0 along every dimension in which its labels are constant."""
    shape = axis.shape
    for dim in varying_dims(axis):
        first = axis.narrow(dim, 0, 1)
        if bool((axis == first).all()):
            axis = first
    return axis.expand(shape)


def along(axis: Tensor, dim: int) -> Tensor:
    """Return the labels along one dimension of an axis that varies along no other, [size(dim)]."""
    dim %= axis.dim()
    index: list[int | slice] = [0] * axis.dim()
    index[dim] = slice(None)
    return axis[tuple(index)]


def lay(labels: Tensor, dim: int, shape: torch.Size) -> Tensor:
    """Return an axis of `shape` whose labels vary along `dim` only; inverse of `along`."""
    view = [1] * len(shape)
    view[dim] = len(labels)
    return labels.view(view).expand(shape)
