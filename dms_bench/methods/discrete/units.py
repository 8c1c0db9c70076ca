"""The few sizes, called levels, among which a discrete method chooses for every unit of the widths, and their cost.

Shape legend:
    E: elements of all searched units
    G: width groups
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dms_bench.scaling import Budget, SearchSpace


@dataclass(frozen=True)
class WidthUnit:
    """A width group, or several that are tied and so keep equally many elements.

    Attributes:
        groups: their numbers.
        counts: its levels, numbers of kept elements of each group, ascending.
    """

    groups: tuple[int, ...]
    counts: tuple[int, ...]

    def lost(self, space: SearchSpace, scores: Tensor) -> list[float]:
        """Return what each level loses: the sum of the lowest scores [E], of as many elements as are removed."""
        sums = torch.zeros(len(self.counts), dtype=torch.float64)
        for group in self.groups:
            start, size = space.units.starts[group], space.units.sizes[group]
            ascending = scores[start : start + size].double().sort().values
            below = torch.cat([ascending.new_zeros(1), ascending.cumsum(0)])
            sums += below[size - torch.tensor(self.counts)]
        return sums.tolist()


def width_units(space: SearchSpace, levels: int) -> list[WidthUnit]:
    """Return the units of the widths with their levels: evenly spread, the fewest and the most among them.

    Args:
        space: the search space, whose minima, maxima, multiples and ties hold.
        levels: how many; a unit that has fewer sizes has all of them.
    """
    groups: dict[int, list[int]] = {}
    for group in range(len(space.groups)):
        groups.setdefault(int(space.tied[group]), []).append(group)
    return [WidthUnit(tuple(members), _spread(space, members, levels)) for members in groups.values()]


def usage(space: SearchSpace, budget: Budget, mask: Tensor) -> float:
    """Return the largest share of its target that any cost of a binary mask, [E], has."""
    kept = space.kept_elements(mask)[: len(space.groups)]
    return float(budget.usage(kept, mask[space.width_elements :]))


def _spread(space: SearchSpace, groups: list[int], levels: int) -> tuple[int, ...]:
    units = space.units
    fewest, most = max(units.minimum[group] for group in groups), min(units.maximum[group] for group in groups)
    multiple = math.lcm(*(units.multiple[group] for group in groups))
    counts = {fewest, most}
    for level in range(1, levels - 1):
        even = fewest + (most - fewest) * level / (levels - 1)
        counts.add(min(max(round(even / multiple) * multiple, fewest), most))
    return tuple(sorted(counts))
