"""Relaxations with noise: drawn from a seed once per step, the same on every worker and after a resume."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.structure.relaxation import Relaxation

#: Logits beyond this leave no doubt.
CERTAIN = 40.0
#: The probability with which an element, or a whole unit, is kept at the start of a search that begins whole.
SURE = 0.95


class Noisy(Relaxation):
    """A relaxation with noise.

    Args:
        space: the search space.
        seed: of the noise.
        shape: of the noise.
    """

    def __init__(self, space: SearchSpace, *, seed: int, shape: Sequence[int]) -> None:
        super().__init__(space)
        self.seed = seed
        self.register_buffer("draws", torch.zeros((), dtype=torch.long))
        self.register_buffer("noise", torch.zeros(tuple(shape)))
        self.draws: Tensor
        self.noise: Tensor
        self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.draws))
        self.noise.copy_(self.sample(generator))
        self.draws.add_(1)

    @abstractmethod
    def sample(self, generator: torch.Generator) -> Tensor:
        """Return noise in its shape."""

    def update(self, mask: Tensor, gradient: Tensor | None) -> None:
        """Draw the next step's noise."""
        self._draw()


def gumbel(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return Gumbel noise: the largest of logits with it is a draw from their softmax."""
    return -torch.empty(tuple(shape)).exponential_(generator=generator).log()


class Sampled(Noisy):
    """Logits, and noise of their shape.

    Args:
        space: the search space.
        logits: initial logits.
        seed: of the noise.
    """

    def __init__(self, space: SearchSpace, logits: Tensor, *, seed: int) -> None:
        super().__init__(space, seed=seed, shape=logits.shape)
        self.logits = nn.Parameter(logits)

    @property
    def reach(self) -> float:
        """Beyond it every element stays, or goes."""
        return CERTAIN + float(self.logits.detach().abs().max())

    def undecided(self, depth: bool) -> Tensor:
        """Return 1 for the elements of units that are not decided, [E]."""
        undecided = torch.ones(len(self._owner), dtype=self.logits.dtype, device=self.logits.device)
        if self.depth_frozen or not depth:
            undecided[self.width_elements :] = 0
        return undecided
