"""Rounding wished-for sizes to an architecture that meets a budget.

Shape legend:
    U: searched units (width groups, then stages)
    E: elements of all units
    G: width groups
    N: choices of widths that are costed at once
"""

from __future__ import annotations

import torch
from torch import Tensor

from dms_bench.scaling.budget import Budget
from dms_bench.scaling.space import SearchSpace
from dms_bench.scaling.topk import ascending_positions

#: A budget is met when the hard cost is this close to it, relatively.
TOLERANCE = 0.01


def fit_to_budget(space: SearchSpace, counts: Tensor, importance: Tensor, budget: Budget) -> Tensor:
    """Return the binary mask, [E], nearest to some wished-for sizes that meets a budget.

    All widths are scaled by one factor, found by bisection, and single elements are added or removed
    until the cost is as close to the target as the space allows. Blocks change only where widths
    alone cannot meet the budget. Of each unit the most important elements stay.

    Args:
        space: the search space.
        counts: wished-for number of elements per unit, real-valued, [U].
        importance: of every element, [E].
        budget: what is to be met.
    """
    return _Fit(space, budget, importance).mask(counts)


class _Fit:
    """Costs are shares of the budget here: 1 meets it exactly."""

    def __init__(self, space: SearchSpace, budget: Budget, importance: Tensor) -> None:
        self.space, self.budget = space, budget
        units = space.units
        self.widths = len(space.groups)
        self.sizes = torch.tensor(units.sizes)
        self.minimum, self.maximum = torch.tensor(units.minimum), torch.tensor(units.maximum)
        self.owner = units.owner
        starts = torch.tensor(units.starts, dtype=torch.long)
        self.positions = ascending_positions(importance, units.owner, starts)

    def mask(self, counts: Tensor) -> Tensor:
        kept = self.rounded(counts)
        kept = self.reach_by_depth(kept, counts)
        low, high = 0.0, float(self.sizes.max()) / max(float(counts[: self.widths].amin()), 1e-3)
        for _ in range(60):  # to the last bit of what rounding can tell apart
            middle = (low + high) / 2
            if self.cost(self.scaled(counts, middle, kept)) <= 1:
                low = middle
            else:
                high = middle
        kept = self.polished(self.scaled(counts, low, kept))
        return self.binary(kept)

    def rounded(self, counts: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(counts.round().long(), self.minimum), self.maximum)

    def scaled(self, counts: Tensor, factor: float, kept: Tensor) -> Tensor:
        """Scale widths, keep the depth."""
        return torch.cat([self.rounded(counts * factor)[: self.widths], kept[self.widths :]])

    def binary(self, kept: Tensor) -> Tensor:
        """The mask of the most important elements, [E]."""
        return (self.positions >= (self.sizes - kept)[self.owner]).float()

    def cost(self, kept: Tensor) -> float:
        return float(self.costs(kept[None, : self.widths], kept))

    def costs(self, widths: Tensor, kept: Tensor) -> Tensor:
        """Cost of many choices of widths [N, G] at the depth of `kept`, [N]."""
        blocks = self.binary(kept)[self.space.width_elements :]
        return self.budget.load(widths, blocks)

    def reach_by_depth(self, kept: Tensor, counts: Tensor) -> Tensor:
        """Add or remove blocks where even all, or the fewest, elements miss the target."""
        kept, direction = kept.clone(), 0
        while True:
            widest = torch.cat([self.maximum[: self.widths], kept[self.widths :]])
            thinnest = torch.cat([self.minimum[: self.widths], kept[self.widths :]])
            if self.cost(widest) < 1:
                step, limit = 1, self.maximum
            elif self.cost(thinnest) > 1:
                step, limit = -1, self.minimum
            else:
                return kept
            movable = [unit for unit in range(self.widths, len(kept)) if kept[unit] != limit[unit]]
            if not movable or step == -direction:  # between the two depths no width fits
                return kept
            direction = step
            # The stage whose wish is missed most moves first.
            unit = max(movable, key=lambda unit: step * float(counts[unit] - kept[unit]))
            kept[unit] += step

    def polished(self, kept: Tensor) -> Tensor:
        """Add the largest single steps that fit; if still far, make the one or two that come closest."""
        kept, cost = kept.clone(), self.cost(kept)
        while cost < 1 - TOLERANCE / 10:
            fitting = [(delta, unit) for delta, unit, way in self.steps(kept) if way > 0 and cost + delta <= 1]
            if not fitting:
                break
            delta, unit = max(fitting)
            kept[unit] += 1
            cost += delta
        if cost >= 1 - TOLERANCE:
            return kept
        steps = self.steps(kept)
        pairs = [(one, other) for one in steps for other in steps if one[1] < other[1]]
        moves = [(step,) for step in steps] + sorted(pairs, key=lambda pair: abs(cost + pair[0][0] + pair[1][0] - 1))[
            :50
        ]
        best = kept
        for move in moves:
            moved = kept.clone()
            for _, unit, way in move:
                moved[unit] += way
            # Two steps together cost not quite the sum of both.
            new = self.cost(moved)
            if new <= 1 + TOLERANCE and abs(new - 1) < abs(cost - 1):
                best, cost = moved, new
        return best

    def steps(self, kept: Tensor) -> list[tuple[float, int, int]]:
        """Every single step: (change of the cost, group, +1 or -1)."""
        moves = [
            (unit, way)
            for way, limit in ((+1, self.maximum), (-1, self.minimum))
            for unit in range(self.widths)
            if kept[unit] != limit[unit]
        ]
        if not moves:
            return []
        choices = kept[: self.widths].repeat(len(moves), 1)
        for row, (unit, way) in enumerate(moves):
            choices[row, unit] += way
        changes = (self.costs(choices, kept) - self.cost(kept)).tolist()
        return [(change, unit, way) for change, (unit, way) in zip(changes, moves, strict=True)]
