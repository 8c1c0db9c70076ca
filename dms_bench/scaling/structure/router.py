"""A learnt choice among levels of every unit, made by a small network that is told the budget.

Nemotron Elastic (Taghibakhshi et al. 2025, arXiv 2511.16664): a router of two layers, whose input says which budget is
asked for, gives logits for the levels of each dimension; a Gumbel softmax, cooled from 1 to 0.05, chooses among
them; of each dimension the elements that rank highest stay, in an order that is found before and then fixed. Here there
is a choice per unit (their heterogeneous mode), the order is by the importance that the search's first phase collects,
and the penalty is the common resource loss.

Shape legend:
    U: searched units
    E: elements of all units
    G: width groups
    B: removable blocks
    V: levels of all units
    R: budgets
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.space.units import Units
from dms_bench.scaling.structure.importance import update_importance
from dms_bench.scaling.structure.sampled import SURE, Noisy, gumbel
from dms_bench.scaling.structure.topk import ascending_positions, averaged

#: Temperature of the softmax at the beginning and at the end of a search.
HOT, COLD = 1.0, 0.05
#: Features between the router's two layers.
HIDDEN = 64
#: Decay of the importance's moving average.
_DECAY = 0.99


class Router(Noisy):
    """Chooses a level of each unit.

    Args:
        space: the search space.
        seed: of the noise, and of the router's weights.
        levels: numbers of elements that a width group may keep, evenly apart; stages may keep any number of blocks.
        budgets: how many budgets there are, R.

    Attributes:
        budget: which of them is asked for.
    """

    def __init__(self, space: SearchSpace, *, seed: int, levels: int = 8, budgets: int = 1) -> None:
        unit, number = levels_of(space.units, len(space.groups), levels)
        super().__init__(space, seed=seed, shape=(len(unit),))
        self.budget, self.temperature = 0, HOT
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(HIDDEN, budgets, generator=generator) / math.sqrt(budgets))
        self.second = nn.Parameter(torch.randn(len(unit), HIDDEN, generator=generator) * 1e-2)
        largest = number == torch.tensor(space.units.maximum)[unit]
        rivals = torch.bincount(unit)[unit] - 1
        sure = torch.log(SURE / (1 - SURE) * rivals.clamp(min=1).float())
        self.bias = nn.Parameter(torch.where(largest, sure, torch.zeros_like(sure)))
        # In the state, as what is paid for depends on it: a search may go on after its last step.
        self.register_buffer("_progress", torch.zeros((), dtype=torch.float64))
        self._progress: Tensor
        self.register_buffer("importance", torch.zeros(space.units.total))
        self.register_buffer("_unit", unit, persistent=False)
        self.register_buffer("_number", number, persistent=False)
        self.register_buffer("_tied", space.tied, persistent=False)
        self.importance: Tensor
        self._unit: Tensor
        self._number: Tensor
        self._tied: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """Return Gumbel noise, [V]."""
        return gumbel(self.noise.shape, generator)

    def anneal(self, progress: float) -> None:
        """Cool exponentially."""
        self._progress.fill_(progress)
        self.temperature = HOT * (COLD / HOT) ** progress

    def refresh(self) -> None:
        """Take up how far the search is."""
        self.anneal(float(self._progress))

    @property
    def logits(self) -> Tensor:
        """What the router says of each level at the present budget, [V]."""
        return self.second @ functional.leaky_relu(self.first[:, self.budget]) + self.bias

    def soft_mask(self) -> Tensor:
        """Return the mask of a sampled choice, soft while it is warm, [E]; ones while the order is being found."""
        mask = self._mask(self._choice(self.logits + self.noise))
        return mask * 0 + 1 if self.observing else mask

    def hard_mask(self) -> Tensor:
        """Return the mask of the most probable levels, [E]."""
        logits = self.logits.detach()
        best = torch.full_like(self._sizes, -torch.inf).scatter_reduce(0, self._unit, logits, "amax")
        chosen = logits == best[self._unit]
        first = chosen & (chosen.cumsum(0) == _starts(chosen, self._unit)[self._unit] + 1)  # of equals, the first
        return (self._mask(first.to(logits.dtype)) > 0.5).to(logits.dtype)

    def soft_size(self) -> tuple[Tensor, Tensor]:
        """Return sizes without noise, [G], and masks of blocks, [B]."""
        choice = self._choice(self.logits)
        kept = torch.zeros_like(self._sizes).index_add(0, self._unit, choice * self._number)
        return averaged(kept, self._tied)[: self.groups], self._mask(choice)[self.width_elements :]

    def proposal(self) -> tuple[Tensor, Tensor]:
        """Return the numbers that costs are computed from, [U], and the importance."""
        with torch.no_grad():
            choice = self._choice(self.logits)
            kept = torch.zeros_like(self._sizes).index_add(0, self._unit, choice * self._number)
            return averaged(kept, self._tied).cpu(), self.importance.cpu()

    @torch.no_grad()
    def update(self, mask: Tensor, gradient: Tensor | None) -> None:
        """Draw the next step's noise; collect the importance for as long as nothing is decided."""
        super().update(mask, gradient)
        if self.observing and gradient is not None:
            update_importance(self.importance, ((slice(None), "taylor"),), mask, gradient, _DECAY)

    def _choice(self, logits: Tensor) -> Tensor:
        """Return the softmax over each unit's levels, [V]."""
        scaled = logits / self.temperature
        peak = torch.full_like(self._sizes, -torch.inf).scatter_reduce(0, self._unit, scaled.detach(), "amax")
        weight = torch.exp(scaled - peak[self._unit])
        return weight / torch.zeros_like(self._sizes).index_add(0, self._unit, weight)[self._unit]

    def _mask(self, choice: Tensor) -> Tensor:
        """Add up, for each element, the levels that keep it, [E]."""
        # The element of rank r from above stays at every level of more than r.
        keeps = self._number > 0
        last = (self._starts[self._unit] + self._number - 1)[keeps]
        ends = torch.zeros(len(self._owner), dtype=choice.dtype, device=choice.device).index_add(0, last, choice[keeps])
        by_unit = torch.split(ends, [int(size) for size in self._sizes.tolist()])
        staying = torch.cat([part.flip(0).cumsum(0).flip(0) for part in by_unit])
        positions = ascending_positions(self.importance, self._owner, self._starts)
        from_above = self._sizes[self._owner].long() - 1 - positions
        return staying[self._starts[self._owner] + from_above]


def levels_of(units: Units, groups: int, levels: int) -> tuple[Tensor, Tensor]:
    """Return the unit of every level and the number of elements that it keeps, both [V]."""
    unit, number = [], []
    for index, (low, most, multiple) in enumerate(zip(units.minimum, units.maximum, units.multiple, strict=True)):
        if index < groups:
            evenly = torch.linspace(max(low, 1), most, levels).tolist()
            counts = {min(most, max(low, multiple * max(1, round(count / multiple)))) for count in evenly} | {most}
        else:
            counts = set(range(low, most + 1))
        unit += [index] * len(counts)
        number += sorted(counts)
    return torch.tensor(unit, dtype=torch.long), torch.tensor(number, dtype=torch.long)


def _starts(chosen: Tensor, unit: Tensor) -> Tensor:
    """Return how many levels are chosen in the units before each, [U]."""
    of_unit = torch.bincount(unit, weights=chosen.to(torch.float64)).long()
    return of_unit.cumsum(0) - of_unit
