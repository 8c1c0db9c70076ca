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
    """Classes of labels. Unions and freezings are written down, and resolved all at once."""

    def __init__(self) -> None:
        self._next = FIXED + 1
        self._pairs: list[Tensor] = []
        self._frozen: list[tuple[Tensor, str]] = []

    def fresh(self, count: int) -> Tensor:
        """Return `count` new labels, [count]."""
        first = self._next
        self._next += count
        return torch.arange(first, first + count)

    def unite(self, left: Tensor, right: Tensor) -> None:
        """Unite the classes of two label tensors of one shape, element by element."""
        for dim in range(left.dim()):
            if left.size(dim) > 1 and left.stride(dim) == 0 and right.stride(dim) == 0:
                left, right = left.narrow(dim, 0, 1), right.narrow(dim, 0, 1)
        differ = left != right
        if bool(differ.any()):
            self._pairs.append(_distinct(left[differ], right[differ]))

    def freeze(self, axis: Tensor, reason: str) -> None:
        """Exclude the classes of all labels of an axis from the search."""
        for dim in range(axis.dim()):
            if axis.size(dim) > 1 and axis.stride(dim) == 0:
                axis = axis.narrow(dim, 0, 1)
        self._frozen.append((torch.unique(axis), reason))

    def resolve(self) -> tuple[Tensor, dict[int, str]]:
        """Return the class of every label, and why the first labels of frozen classes were frozen.

        Returns:
            The lowest label of each label's class, [labels], `FIXED` for frozen classes; and by label
            the reason why a class is frozen (the first that was given).
        """
        pairs = torch.cat([*self._pairs, torch.empty(2, 0, dtype=torch.long)], dim=1)
        pairs = _distinct(pairs[0], pairs[1]) if pairs.size(1) else pairs
        fixed = (pairs == FIXED).any(0)
        roots = _components(self._next, pairs[:, ~fixed])
        frozen = torch.zeros(self._next, dtype=torch.bool)
        reason_of: dict[int, str] = {}
        met_fixed = pairs[:, fixed].amax(0)
        for labels, reason in [*self._frozen, (met_fixed, "meets what has a fixed size")]:
            for root in torch.unique(roots[labels]).tolist():
                reason_of.setdefault(root, reason)
            frozen[roots[labels]] = True
        frozen[FIXED] = True
        reasons = {label: reason_of[root] for label, root in enumerate(roots.tolist()) if root in reason_of}
        return torch.where(frozen[roots], FIXED, roots), reasons


def _distinct(left: Tensor, right: Tensor) -> Tensor:
    """Return the distinct pairs of two label vectors, the lower label first, [2, pairs]."""
    low, high = torch.minimum(left, right).flatten(), torch.maximum(left, right).flatten()
    base = int(high.max()) + 1
    codes = torch.unique(low * base + high)
    return torch.stack([codes // base, codes % base])


def _components(count: int, pairs: Tensor) -> Tensor:
    """Return the lowest label of each label's connected component, [count]."""
    roots = torch.arange(count)
    while pairs.size(1):
        roots.scatter_reduce_(0, pairs[1], pairs[0], "amin")
        while not torch.equal(jumped := roots[roots], roots):
            roots = jumped
        ends = roots[pairs]
        ends = ends[:, ends[0] != ends[1]]
        pairs = _distinct(ends[0], ends[1]) if ends.size(1) else ends
    return roots


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
