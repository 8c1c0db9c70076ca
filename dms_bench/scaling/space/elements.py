"""What a search space is made of: groups and stages of elements, and where their masks act and sizes stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Group:
    """Coupled elements that one top-k keeps or removes.

    Attributes:
        name: the layer that makes the elements; `.stream` where several add to one stream.
        size: number of elements.
        heads: elements are whole attention heads.
        step: channels or heads that an element stands for, in a coarse space (`coarse`).
        minimum: fewest elements that may stay.
        maximum: most that may stay; None: all.
        tie: groups with the same tie keep equally many; empty: the group is free.
    """

    name: str
    size: int
    heads: bool = False
    step: int = 1
    minimum: int = 1
    maximum: int | None = None
    tie: str = ""

    @property
    def members(self) -> int:
        """Number of channels or heads, in elements of a single one each."""
        return self.size * self.step


@dataclass(frozen=True)
class Stage:
    """The removable blocks of one container.

    Attributes:
        name: path of the container.
        blocks: paths of the blocks, in the order of the forward pass.
        minimum: fewest blocks that may stay: one where nothing else remains in the container.
        maximum: most that may stay; None: all.
    """

    name: str
    blocks: tuple[str, ...]
    minimum: int
    maximum: int | None = None

    @property
    def size(self) -> int:
        """Number of removable blocks."""
        return len(self.blocks)


def blocks_of(stages: Iterable[Stage]) -> tuple[str, ...]:
    """Return the paths of the removable blocks of some stages."""
    return tuple(block for stage in stages for block in stage.blocks)


@dataclass(frozen=True)
class Site:
    """A weight whose contracted dimension is scaled by a mask.

    Attributes:
        module: the module that runs the operator.
        parameter: name of the weight.
        dim: its contracted dimension.
        standardised: the module standardises the weight over that dimension before it uses it.
    """

    module: str
    parameter: str
    dim: int
    standardised: bool = False


@dataclass(frozen=True)
class NormedWeight:
    """A weight that is g v / ||v||, the norm over all dimensions but one (weight norm).

    Attributes:
        magnitude: name of g.
        direction: name of v.
        dim: the dimension over which the norm is not taken.
    """

    magnitude: str
    direction: str
    dim: int


@dataclass(frozen=True)
class RowSite:
    """Rows of a layer that makes queries; masks scale them, as no weight sums over the head size.

    Attributes:
        module: the layer.
        parameter: its weight, or its bias.
        elements: of the head size, by row; -1 for the rows of keys and values, [rows].
        scaled: the attention divides by the square root of the head size that it sees.
    """

    module: str
    parameter: str
    elements: Tensor
    scaled: bool


@dataclass(frozen=True)
class NormSite:
    """A norm whose statistics run over masked features.

    Attributes:
        module: the norm.
        dim: the dimension of its input along which the features lie.
        elements: outer and inner element that each feature goes with, [2, size].
        kind: what it computes, where it is one of `recognised`; a LayerNorm or GroupNorm otherwise.
    """

    module: str
    dim: int
    elements: Tensor
    kind: str = ""


@dataclass(frozen=True)
class ShapeCall:
    """A recorded call: which of its module's calls, and what its sizes consist of.

    Attributes:
        call: function, line in it and how many times the line ran before in the module's forward pass.
        kind: reshape, split, slice, fill (a tensor of one number everywhere), or packed: a reshape that makes packed
            queries, keys and values.
        rank: number of dimensions of the operand; of the result of a fill.
        dim: the dimension that is split or sliced; 0 for a reshape and a fill.
        sizes: of a fill, labels per dimension, or None; of a reshape, per dimension of the result, labels [size],
            dimensions of the operand to multiply, or None; of a split, labels of each piece; of a slice, labels before
            and in it; of packed queries, keys and values, labels of the features of each and, at the end, of their
            heads.
            What is labels while tracing, [size], is elements [2, size] in a search space.
        merged: dimensions of a reshape's result that lay in one of the operand's, several times over: beside samples or
            positions, of which only the code knows how many there are; all of a fill's.
    """

    call: str
    kind: str
    rank: int
    dim: int
    sizes: tuple[Tensor | list[int] | None, ...]
    merged: tuple[int, ...] = ()

    @property
    def searched(self) -> bool:
        """Whether a cut may change any of the sizes."""
        return any(bool((size >= 0).any()) for size in self.sizes if isinstance(size, Tensor))

    def renumbered(self, new: Tensor) -> ShapeCall:
        """Return the call with other elements, which `new` holds by element."""
        sizes = tuple(new[size] if isinstance(size, Tensor) else size for size in self.sizes)
        return replace(self, sizes=sizes)
