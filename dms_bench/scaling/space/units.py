"""The sizes of what is searched, as the relaxations need them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Units:
    """The sizes of all searched units and where their elements lie.

    Attributes:
        sizes: number of elements of each unit, [U].
        minimum: fewest elements that may stay, [U].
        maximum: most elements that may stay, [U].
        multiple: a cut keeps a multiple of this number of elements, or the maximum, [U].
        steep: whether the unit uses the steeper mask of small units, [U].
    """

    sizes: tuple[int, ...]
    minimum: tuple[int, ...]
    maximum: tuple[int, ...]
    multiple: tuple[int, ...]
    steep: tuple[bool, ...]

    @property
    def total(self) -> int:
        """Number of elements of all units."""
        return sum(self.sizes)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Index of each unit's first element, [U]."""
        return tuple(sum(self.sizes[:unit]) for unit in range(len(self.sizes)))

    @cached_property
    def owner(self) -> Tensor:
        """The unit of each element, [E]."""
        return torch.repeat_interleave(torch.arange(len(self.sizes)), torch.tensor(self.sizes, dtype=torch.long))

    def lower_ratio(self) -> Tensor:
        """The smallest pruning ratio of each unit, which keeps its maximum, [U]."""
        return torch.tensor([1 - most / size for size, most in zip(self.sizes, self.maximum, strict=True)])

    def upper_ratio(self) -> Tensor:
        """The largest pruning ratio of each unit, which keeps its minimum, [U]."""
        return torch.tensor([1 - low / size for size, low in zip(self.sizes, self.minimum, strict=True)])
