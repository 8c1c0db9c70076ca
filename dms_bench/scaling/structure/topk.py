"""The differentiable top-k, for many units (width groups, heads, coarse runs, stages) at once.

One convention for all of them. Of N elements in ascending order of importance, that at position j = 0 ... N - 1 has the
rank c' = (j + 1/2) / N, and a cut keeps it where c' >= a: exactly where its soft mask sigmoid(lambda (c' - a)) is at
least 1/2. So the number of kept elements is (1 - a) N, rounded to the nearest (a tie keeps one more), and the soft
masks sum to (1 - a) N, but for the tails that the sigmoid loses near a = 0 and a = 1, ln 2 N / lambda at most. What a
search pays for is what a cut keeps.

Equation (2) of the paper counts the elements below with a strict ">": its rank is j / N, and the masks sum to half an
element less. The authors' code counts with ">=", (j + 1) / N, half an element more. A stage of one block has the rank
1/2 here, which gives the authors' sigmoid(8 (1/2 - a)); equation (2) gives sigmoid(-8 a), which is never above 1/2.

Shape legend:
    U: searched units
    E: elements of all units, concatenated unit after unit
"""

from __future__ import annotations

import torch
from torch import Tensor

from dms_bench.scaling.space.units import Units

#: Masks below this are exact zeros. Smaller ones would turn into denormal numbers in the products
#: that follow, which cost a CPU three times the step (measured), and change nothing.
MASK_FLOOR = 1e-8

#: Units with few elements (heads, the blocks of a stage) have a steeper mask (appendix A.3.5).
SMALL_UNIT_FACTOR = 4.0
#: Lambda of a unit with a single element, so that its mask goes from .98 to .02 (the authors' code).
SINGLE_SLOPE = 8.0


def slopes(units: Units, temperature: float) -> Tensor:
    """Slope lambda of equation (3) of every unit: the temperature is its factor on N, [U]."""
    slope = (
        SINGLE_SLOPE if size == 1 else size * (SMALL_UNIT_FACTOR if steep else 1.0)
        for size, steep in zip(units.sizes, units.steep, strict=True)
    )
    return torch.tensor([temperature * each for each in slope])


def ascending_positions(importance: Tensor, owner: Tensor, starts: Tensor) -> Tensor:
    """Return each element's place, from 0, in its unit's ascending order of importance, [E].

    Sorting replaces equation (2)'s N x N comparisons; ties are broken by their order in the unit.
    """
    by_importance = importance.argsort(stable=True)
    by_unit = by_importance[owner[by_importance].argsort(stable=True)]
    positions = torch.empty_like(by_unit)
    positions[by_unit] = torch.arange(len(by_unit), device=by_unit.device) - starts[owner[by_unit]]
    return positions


def normalised_rank(positions: Tensor, sizes: Tensor) -> Tensor:
    """Equation (2), at the middle of each element's share of [0, 1]: c' = (j + 1/2) / N; all [E].

    Args:
        positions: j, each element's place in its unit's ascending order of importance.
        sizes: N, of each element's unit.
    """
    return (positions + 0.5) / sizes


def soft_mask(normalised: Tensor, ratio: Tensor, slope: Tensor) -> Tensor:
    """Equation (3): sigmoid(lambda (c' - a)), with exact zeros far below the threshold.

    Args:
        normalised: c', the rank-normalised importance in (0, 1), [E].
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


def hard_mask(normalised: Tensor, ratio: Tensor) -> Tensor:
    """Return 1 where the soft mask is at least 1/2, for the k = round((1 - a) N) most important elements, [E].

    Args:
        normalised: c', the normalised rank, [E].
        ratio: a, the pruning ratio of each element's unit, [E].
    """
    return (normalised >= ratio).to(ratio.dtype)


def rounded(counts: Tensor) -> Tensor:
    """Round real-valued numbers of elements, (1 - a) N, as `hard_mask` does: a tie keeps one more."""
    return (counts + 0.5).floor()
