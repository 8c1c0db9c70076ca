"""Sizes that differ a little from others and cost the same: some units go down by a level, as many others go up.

Shape legend:
    U: searched units (width groups, then stages)
    E: elements of all units
"""

from __future__ import annotations

import torch
from torch import Tensor

from dms_bench.methods.base import SearchContext
from dms_bench.methods.discrete.units import usage
from dms_bench.scaling.fit import TOLERANCE, fit_to_budget

#: Most shifts of a mutation: the number is the smaller of two draws, so that few are more frequent.
_SHIFTS = 3
#: Mutations that are tried for each child that is wanted.
_TRIES = 10


class Mutation:
    """Makes children at the budget.

    Args:
        context: the search.
        scores: of every element, [E]: the highest of each unit stay.
        levels: sizes from the fewest to the most elements of a width; a level of a stage is a block.
    """

    def __init__(self, context: SearchContext, scores: Tensor, levels: int) -> None:
        self.space, self.budget, self.scores = context.space, context.budget, scores
        units = self.space.units
        self.minimum, self.maximum = (torch.tensor(of).float() for of in (units.minimum, units.maximum))
        multiple = torch.tensor(units.multiple)
        steps = ((self.maximum - self.minimum) / (levels - 1) / multiple).round().clamp_min(1) * multiple
        steps[len(self.space.groups) :] = 1
        self.steps, self.tied = steps, self.space.tied
        #: The first of those that are tied stands for all of them.
        self.leads = self.tied == torch.arange(len(self.tied))

    def fitted(self, counts: Tensor) -> Tensor:
        """Return the binary mask [E] at the budget of proposed sizes, [U]."""
        return fit_to_budget(self.space, counts, self.scores, self.budget)

    def children(self, parent: Tensor, number: int, generator: torch.Generator) -> list[Tensor]:
        """Return masks [E] that meet the budget and differ from a parent's and from one another, at most a number."""
        found = [parent]
        for _ in range(_TRIES * number):
            if len(found) > number:
                break
            child = self.fitted(self._shifted(self.space.kept_elements(parent), generator))
            if self.meets(child) and not any(torch.equal(child, other) for other in found):
                found.append(child)
        return found[1:]

    def meets(self, mask: Tensor) -> bool:
        """Tell whether the network that a binary mask [E] leaves is within the tolerance of the budget."""
        return abs(usage(self.space, self.budget, mask) - 1) <= TOLERANCE

    def _shifted(self, counts: Tensor, generator: torch.Generator) -> Tensor:
        """Return sizes [U] of which one to three units have a level less, and as many a level more."""
        shifts = int(torch.randint(1, _SHIFTS + 1, (2,), generator=generator).min())
        for _ in range(shifts):
            down = self._drawn(self.leads & (counts > self.minimum), generator)
            up = self._drawn(self.leads & (counts < self.maximum), generator)
            counts = counts - self.steps * (self.tied == down) + self.steps * (self.tied == up)
            counts = counts.maximum(self.minimum).minimum(self.maximum)
        return counts

    def _drawn(self, units: Tensor, generator: torch.Generator) -> int:
        """Return one of some units, [U], or -1 where there is none."""
        numbers = units.nonzero().flatten()
        return int(numbers[torch.randint(len(numbers), (), generator=generator)]) if len(numbers) else -1
