"""The differentiable top-k, for many units (width groups, stages) at once.

Shape legend:
    U: searched units
    E: elements of all units, concatenated unit after unit
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

#: Masks below this are exact zeros. Smaller ones would turn into denormal numbers in the products
#: that follow, which cost a CPU three times the step (measured), and change nothing.
MASK_FLOOR = 1e-8

#: Units with few elements (heads, the blocks of a stage) have a steeper mask (appendix A.3.5).
SMALL_UNIT_FACTOR = 4.0


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

    def slope(self, temperature: float) -> Tensor:
        """Slope lambda of equation (3): the temperature is its factor on N, [U]."""
        factors = (SMALL_UNIT_FACTOR if steep else 1.0 for steep in self.steep)
        return torch.tensor([temperature * size * factor for size, factor in zip(self.sizes, factors, strict=True)])

    def lower_ratio(self) -> Tensor:
        """The smallest pruning ratio of each unit, which keeps its maximum, [U]."""
        return torch.tensor([1 - most / size for size, most in zip(self.sizes, self.maximum, strict=True)])

    def upper_ratio(self) -> Tensor:
        """The largest pruning ratio of each unit, which keeps its minimum, [U]."""
        return torch.tensor([1 - low / size for size, low in zip(self.sizes, self.minimum, strict=True)])


def ascending_positions(importance: Tensor, owner: Tensor, starts: Tensor) -> Tensor:
    """Return each element's place, from 0, in its unit's ascending order of importance, [E].

    Sorting replaces equation (2)'s N x N comparisons; ties are broken by position.
    """
    by_importance = importance.argsort(stable=True)
    by_unit = by_importance[owner[by_importance].argsort(stable=True)]
    positions = torch.empty_like(by_unit)
    positions[by_unit] = torch.arange(len(by_unit), device=by_unit.device) - starts[owner[by_unit]]
    return positions


def soft_mask(normalised: Tensor, ratio: Tensor, slope: Tensor) -> Tensor:
    """Equation (3): sigmoid(lambda (c' - a)), with exact zeros far below the threshold.

    Args:
        normalised: c', the rank-normalised importance in [0, 1), [E].
        ratio: a, the pruning ratio of each element's unit, [E].
        slope: lambda of each element's unit, [E].
    """
    mask = torch.sigmoid(slope * (normalised - ratio))
    return torch.where(mask > MASK_FLOOR, mask, torch.zeros_like(mask))


def averaged(values: Tensor, tied: Tensor) -> Tensor:
    """Give units that belong together the mean of their values, [U].

    Args:
        values: one per unit, [U].
        tied: the first unit of those that each belongs to, [U].
    """
    # Not by `index_add`, whose order of summation, and so the last bit, may differ between workers.
    together = tied[:, None] == tied
    return torch.where(together, values, 0).sum(1) / together.sum(1)


def kept_counts(ratio: Tensor, sizes: Tensor, minimum: Tensor) -> Tensor:
    """Return k = round((1 - a) N) of each unit, never below its minimum; all [U]."""
    counts = ((1 - ratio.double()) * sizes).round().to(sizes.dtype)
    return torch.minimum(torch.maximum(counts, minimum), sizes)
