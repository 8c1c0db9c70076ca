"""Relaxations that sample: a gate per element (MES), a choice of the count per unit (SNS).

Both are straight-through Gumbel-softmax, as released with DMS, or `fair`: they start at the whole supernet,
cool down, and pay for expected instead of most probable sizes.

Shape legend:
    U: searched units
    E: elements of all units
    G: width groups
    B: removable blocks
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.structure.sampled import SURE, Sampled, gumbel

#: Temperature as released; also where the fair variant's ends by default.
COLD = 0.1
#: The fair variant begins this much hotter than it ends.
HEAT = 50.0


class Gumbel(Sampled):
    """Logits with Gumbel noise.

    Args:
        space: the search space.
        logits: initial logits.
        seed: of the noise.
        fair: begin whole, cool down, pay for expected sizes.
        temperature: of the softmax; where fair, at the end.
    """

    def __init__(self, space: SearchSpace, logits: Tensor, *, seed: int, fair: bool, temperature: float) -> None:
        super().__init__(space, logits, seed=seed)
        self.fair, self.coldest = fair, temperature
        self.temperature = temperature
        self.anneal(0.0)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Return Gumbel noise."""
        return gumbel(self.noise.shape, generator)

    def anneal(self, progress: float) -> None:
        """Cool exponentially."""
        if self.fair:
            self.temperature = self.coldest * HEAT ** (1 - progress)

    def soft_size(self) -> tuple[Tensor, Tensor]:
        """Return sizes without noise: of the most probable mask, straight-through; expected where fair."""
        mask = self.expected_mask()
        if not self.fair:
            mask = self.hard_mask() + (mask - mask.detach())
        return self._counts(mask)[: self.groups], mask[self.width_elements :]

    @abstractmethod
    def expected_mask(self) -> Tensor:
        """Return the probability with which each element stays, [E]."""

    def proposal(self) -> tuple[Tensor, Tensor]:
        """Return counts as the costs see them, and the logits' order."""
        with torch.no_grad():
            mask = self.expected_mask() if self.fair else self.hard_mask()
            return self._counts(mask).cpu(), self._order().cpu()

    @abstractmethod
    def _order(self) -> Tensor:
        """Return how much each element is wanted, [E]."""


class ElementGates(Gumbel):
    """Mask element selection (MES): two logits per element, keep or remove, [E, 2]."""

    def __init__(self, space: SearchSpace, *, seed: int, fair: bool = False, temperature: float = COLD) -> None:
        logits = torch.zeros(space.units.total, 2)
        logits[:, 0] = math.log(SURE / (1 - SURE)) if fair else 0.01
        super().__init__(space, logits, seed=seed, fair=fair, temperature=temperature)

    def soft_mask(self) -> Tensor:
        """Return a sampled binary mask whose gradient is the softmax's, [E]."""
        keep = torch.softmax((self.logits + self.noise) / self.temperature, -1)[:, 0]
        return (keep > 0.5).to(keep.dtype) + (keep - keep.detach())

    def hard_mask(self) -> Tensor:
        """Keep what is kept more probably than not, [E]."""
        keep = self.expected_mask().detach()
        return (keep > 0.5).to(keep.dtype)

    def expected_mask(self) -> Tensor:
        """Return q = softmax(e)[0], [E]."""
        return torch.softmax(self.logits, -1)[:, 0]

    def shrinking(self, *, depth: bool = True) -> Tensor:
        """Return what makes every element less probable, [E, 2]."""
        less = self.undecided(depth)
        return torch.stack([-less, torch.zeros_like(less)], -1)

    def _order(self) -> Tensor:
        return self.logits.detach()[:, 0] - self.logits.detach()[:, 1]


class CountChoice(Gumbel):
    """Single number selection (SNS): choice i of a unit keeps its elements i ... N - 1; a logit per choice, [E]."""

    def __init__(self, space: SearchSpace, *, seed: int, fair: bool = False, temperature: float = COLD) -> None:
        units = space.units
        logits = torch.zeros(units.total)
        for start, size in zip(units.starts, units.sizes, strict=True):
            logits[start] = math.log(SURE / (1 - SURE) * max(size - 1, 1)) if fair else 0.1
        super().__init__(space, logits, seed=seed, fair=fair, temperature=temperature)

    def soft_mask(self) -> Tensor:
        """Return the mask of a sampled choice whose gradient is the softmax's, [E]."""
        logits = (self.logits + self.noise) / self.temperature
        soft = self._kept(self._softmax(logits))
        return self._kept(self._best(logits)) + (soft - soft.detach())

    def hard_mask(self) -> Tensor:
        """Return the most probable choice's mask, [E]."""
        return self._kept(self._best(self.logits))

    def expected_mask(self) -> Tensor:
        """Return the probability with which each element stays, [E]."""
        return self._kept(self._softmax(self.logits))

    @property
    def reach(self) -> float:
        """Neighbouring choices of a large unit differ by little along `shrinking`."""
        return super().reach * float(self._sizes.max())

    def shrinking(self, *, depth: bool = True) -> Tensor:
        """Return what makes choices the more probable the fewer elements they keep, from -1 to 1, [E]."""
        choice = torch.arange(len(self._owner), device=self._owner.device) - self._starts[self._owner]
        return (2 * (choice + 0.5) / self._sizes[self._owner] - 1) * self.undecided(depth)

    def _order(self) -> Tensor:
        return torch.arange(len(self._owner), dtype=torch.float32)

    def _softmax(self, logits: Tensor) -> Tensor:
        by_unit = torch.split(logits, [int(size) for size in self._sizes.tolist()])
        return torch.cat([choices.softmax(0) for choices in by_unit])

    def _best(self, logits: Tensor) -> Tensor:
        by_unit = torch.split(logits.detach(), [int(size) for size in self._sizes.tolist()])
        return torch.cat([torch.zeros_like(choices).index_fill_(0, choices.argmax(), 1) for choices in by_unit])

    def _kept(self, choice: Tensor) -> Tensor:
        """Multiply by the upper triangle of ones: element j stays under choices 0 ... j."""
        by_unit = torch.split(choice, [int(size) for size in self._sizes.tolist()])
        return torch.cat([chosen.cumsum(0) for chosen in by_unit])
