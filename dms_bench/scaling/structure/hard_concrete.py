"""Hard-concrete gates: a mask that is exactly 0 or 1 with some probability, and differentiable in its parameter.

Louizos, Welling and Kingma 2018 (arXiv 1712.01312), equations 10 to 12: with u uniform in (0, 1),

    s = sigmoid((log u - log(1 - u) + log alpha) / beta),   z = min(1, max(0, s (zeta - gamma) + gamma)),
    P(z > 0) = sigmoid(log alpha - beta log(-gamma / zeta)).

Sheared LLaMA (Xia et al. 2023, arXiv 2310.06694) prunes language models with them, at the constants below.

Shape legend:
    E: elements of all units
    G: width groups
    B: removable blocks
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.structure.sampled import SURE, Sampled

#: Temperature beta, and the interval (gamma, zeta) to which s is stretched.
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
#: What the log-odds of being above zero are more than log alpha.
_SHIFT = -BETA * math.log(-GAMMA / ZETA)


class HardConcrete(Sampled):
    """A gate per element; `logits` are log alpha, [E]."""

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        sure = math.log(SURE / (1 - SURE)) - _SHIFT
        super().__init__(space, torch.full((space.units.total,), sure), seed=seed)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Return log u - log(1 - u), [E]."""
        u = torch.rand(self.noise.shape, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
        return torch.logit(u)

    def soft_mask(self) -> Tensor:
        """Return sampled gates z, [E]."""
        stretched = torch.sigmoid((self.noise + self.logits) / BETA) * (ZETA - GAMMA) + GAMMA
        return stretched.clamp(0, 1)

    def expected_mask(self) -> Tensor:
        """Return P(z > 0), [E]."""
        return torch.sigmoid(self.logits + _SHIFT)

    def hard_mask(self) -> Tensor:
        """Keep what is above zero more probably than not, [E]."""
        keep = self.expected_mask().detach()
        return (keep > 0.5).to(keep.dtype)

    def soft_size(self) -> tuple[Tensor, Tensor]:
        """Return the expected numbers of gates above zero, [G], and the probabilities of blocks, [B]."""
        mask = self.expected_mask()
        return self._counts(mask)[: self.groups], mask[self.width_elements :]

    def shrinking(self, *, depth: bool = True) -> Tensor:
        """Return what makes every element less probable, [E]."""
        return -self.undecided(depth)

    def proposal(self) -> tuple[Tensor, Tensor]:
        """Return the expected counts, and log alpha, which orders elements."""
        with torch.no_grad():
            return self._counts(self.expected_mask()).cpu(), self.logits.detach().cpu()
