"""Rounding proposed sizes to an architecture that meets a budget.

Shape legend:
    U: searched units (width groups, then stages)
    E: elements of all units
    G: width groups
    N: choices of widths that are costed at once
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dms_bench.scaling.budget import Budget
from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.structure.topk import ascending_positions, averaged, rounded

#: A budget is met when the hard cost is this close to it, relatively.
TOLERANCE = 0.01
#: Pairs of steps that are tried at once where single ones do not do.
PAIRS = 2000


def fit_to_budget(
    space: SearchSpace, counts: Tensor, importance: Tensor, budget: Budget, *, depth_fixed: bool = False
) -> Tensor:
    """Return the binary mask, [E], nearest to some proposed sizes that meets a budget.

    All widths are scaled by one factor, found by bisection, and single elements are added or removed
    until the cost is as close to the target as the space allows. Blocks change only where widths
    alone cannot meet the budget. Of each unit the most important elements stay, in the multiples of the
    space's `round_to`.

    Args:
        space: the search space.
        counts: proposed number of elements per unit, real-valued, [U].
        importance: of every element, [E].
        budget: what is to be met.
        depth_fixed: blocks go only where at the proposed depth even the fewest elements are above the budget,
            and none come back.
    """
    return _Fit(space, budget, importance).mask(counts, depth_fixed)


def nearest(space: SearchSpace, counts: Tensor, importance: Tensor) -> Tensor:
    """Return the binary mask, [E], with the sizes of the space nearest to proposed ones; arguments as above."""
    sizes = _Sizes(space, importance)
    return sizes.binary(sizes.rounded(counts))


class _Sizes:
    """The numbers of elements that may stay of each unit, and which elements they are."""

    def __init__(self, space: SearchSpace, importance: Tensor) -> None:
        units = space.units
        self.sizes, self.multiple = torch.tensor(units.sizes), torch.tensor(units.multiple)
        self.minimum, self.maximum = torch.tensor(units.minimum), torch.tensor(units.maximum)
        self.owner, self.tied = units.owner, space.tied
        starts = torch.tensor(units.starts, dtype=torch.long)
        self.positions = ascending_positions(importance, units.owner, starts)

    def rounded(self, counts: Tensor) -> Tensor:
        """Nearest numbers: multiples, or the maximum, which need not be one; the same for units that are tied."""
        counts = averaged(counts, self.tied)
        kept = rounded(counts / self.multiple).long() * self.multiple
        kept = torch.minimum(torch.maximum(kept, self.minimum), self.maximum)
        return torch.where((self.maximum - counts).abs() < (kept - counts).abs(), self.maximum, kept)

    def more(self, kept: Tensor) -> Tensor:
        """Next numbers above."""
        return torch.minimum((kept // self.multiple + 1) * self.multiple, self.maximum)

    def less(self, kept: Tensor) -> Tensor:
        """Next numbers below."""
        return torch.maximum((kept - 1) // self.multiple * self.multiple, self.minimum)

    def binary(self, kept: Tensor) -> Tensor:
        """The mask of the most important elements, [E]."""
        return (self.positions >= (self.sizes - kept)[self.owner]).float()


class _Fit(_Sizes):
    """Costs are shares of the budget here: 1 meets it exactly."""

    def __init__(self, space: SearchSpace, budget: Budget, importance: Tensor) -> None:
        super().__init__(space, importance)
        self.space, self.budget, self.widths = space, budget, len(space.groups)

    def mask(self, counts: Tensor, depth_fixed: bool) -> Tensor:
        kept = self.at_depth(self.reach_by_depth(self.rounded(counts), counts, depth_fixed), counts)
        if self.miss(kept) > TOLERANCE and not depth_fixed:  # too coarse widths: another block may do
            alternatives = (self.at_depth(depth, counts) for depth in self.other_depths(kept))
            kept = min([kept, *alternatives], key=self.miss)
        miss = float("inf")
        while TOLERANCE < self.miss(kept) < miss:  # or another width of one group, to which all others give way
            miss = self.miss(kept)
            alternatives = (self.at_depth(kept, counts, (unit, to)) for _, unit, to in self.steps(kept))
            kept = min([kept, *alternatives], key=self.miss)
        return self.binary(kept)

    def at_depth(self, kept: Tensor, counts: Tensor, fixed: tuple[int, int] | None = None) -> Tensor:
        """Scale the proposed widths to the budget, at the depth of `kept` and a fixed (group, number of elements)."""
        if not self.widths:
            return kept
        low, high = 0.0, float(self.sizes.max()) / max(float(counts[: self.widths].amin()), 1e-3)
        for _ in range(60):  # to the last bit of what rounding can tell apart
            middle = (low + high) / 2
            if self.cost(self.scaled(counts, middle, kept, fixed)) <= 1:
                low = middle
            else:
                high = middle
        return self.polished(self.scaled(counts, low, kept, fixed))

    def miss(self, kept: Tensor) -> float:
        """How far the cost is from the budget; far above it is no answer."""
        cost = self.cost(kept)
        return abs(cost - 1) if cost <= 1 + TOLERANCE else float("inf")

    def other_depths(self, kept: Tensor) -> Iterator[Tensor]:
        """Yield the same with a block more or less."""
        for numbers in (self.more(kept), self.less(kept)):
            for unit in range(self.widths, len(kept)):
                if numbers[unit] != kept[unit]:
                    changed = kept.clone()
                    changed[unit] = numbers[unit]
                    yield changed

    def scaled(self, counts: Tensor, factor: float, kept: Tensor, fixed: tuple[int, int] | None) -> Tensor:
        """Scale widths but that of a fixed group, keep the depth."""
        scaled = torch.cat([self.rounded(counts * factor)[: self.widths], kept[self.widths :]])
        if fixed is not None:
            scaled[self.tied == fixed[0]] = fixed[1]
        return scaled

    def cost(self, kept: Tensor) -> float:
        return float(self.costs(kept[None, : self.widths], kept))

    def costs(self, widths: Tensor, kept: Tensor) -> Tensor:
        """Cost of many choices of widths [N, G] at the depth of `kept`, [N]."""
        blocks = self.binary(kept)[self.space.width_elements :]
        return self.budget.usage(widths, blocks)

    def reach_by_depth(self, kept: Tensor, counts: Tensor, depth_fixed: bool) -> Tensor:
        """Add or remove blocks where even all, or the fewest, elements miss the target; only remove where fixed."""
        kept, direction = kept.clone(), 0
        while True:
            widest = torch.cat([self.maximum[: self.widths], kept[self.widths :]])
            thinnest = torch.cat([self.minimum[: self.widths], kept[self.widths :]])
            if self.cost(widest) < 1 and not depth_fixed:
                step, limit = 1, self.maximum
            elif self.cost(thinnest) > 1:
                step, limit = -1, self.minimum
            else:
                return kept
            movable = [unit for unit in range(self.widths, len(kept)) if kept[unit] != limit[unit]]
            if not movable or step == -direction:  # between the two depths no width fits
                return kept
            direction = step
            # The stage that is furthest from its proposal moves first.
            unit = max(movable, key=lambda unit: step * float(counts[unit] - kept[unit]))
            kept[unit] += step

    def polished(self, kept: Tensor) -> Tensor:
        """Add the largest single steps that fit; while still far, make the one or two that come closest."""
        kept, cost = kept.clone(), self.cost(kept)
        while cost < 1 - TOLERANCE / 10:
            fitting = [(delta, unit, to) for delta, unit, to in self.steps(kept) if delta > 0 and cost + delta <= 1]
            if not fitting:
                break
            delta, unit, to = max(fitting)
            kept[self.tied == unit] = to
            cost += delta
        while cost < 1 - TOLERANCE:
            closer = self.closer(kept, cost)
            if closer is None:
                break
            kept, cost = closer
        return kept

    def closer(self, kept: Tensor, cost: float) -> tuple[Tensor, float] | None:
        """Make the one or two steps that come closest to the budget; None where none do."""
        steps = self.steps(kept)
        pairs = [(first, second) for first in steps for second in steps if first[1] < second[1]]
        pairs = sorted(pairs, key=lambda pair: abs(cost + pair[0][0] + pair[1][0] - 1))[:PAIRS]
        moves = [*((step,) for step in steps), *pairs]
        choices = kept.repeat(len(moves), 1)
        for row, move in enumerate(moves):
            for _, unit, to in move:
                choices[row, self.tied == unit] = to
        # Two steps together cost not quite the sum of both.
        costs = self.costs(choices[:, : self.widths], kept)
        misses = torch.where(costs > 1 + TOLERANCE, torch.inf, (costs - 1).abs())
        best = int(misses.argmin())
        return (choices[best], float(costs[best])) if misses[best] < abs(cost - 1) else None

    def steps(self, kept: Tensor) -> list[tuple[float, int, int]]:
        """Every single step: (change of the cost, group, its and its tied ones' new number of elements)."""
        moves = [
            (unit, int(numbers[unit]))
            for numbers in (self.more(kept), self.less(kept))
            for unit in range(self.widths)
            if numbers[unit] != kept[unit] and self.tied[unit] == unit
        ]
        if not moves:
            return []
        choices = kept[: self.widths].repeat(len(moves), 1)
        for row, (unit, to) in enumerate(moves):
            choices[row, self.tied[: self.widths] == unit] = to
        changes = (self.costs(choices, kept) - self.cost(kept)).tolist()
        return [(change, unit, to) for change, (unit, to) in zip(changes, moves, strict=True)]
