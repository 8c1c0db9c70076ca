"""Soft top-k by sums of Laplace distributions: a mask that sums to k exactly, of elements with learnt scores.

Struski et al., ICML 2025 (arXiv 2503.06242): of N elements with scores r_i, m_i = F((r_i - b) / alpha) with F the
distribution function of Laplace, and b such that the masks sum to k. With f = F', q_i = f_i / sum_j f_j,

    dm_i / dk = q_i,   dm_i / dr_j = f_i / alpha (delta_ij - q_j).

Scores learn which elements stay, a ratio per unit how many; both are one parameter, ratios first.

Shape legend:
    U: searched units
    E: elements of all units
    G: width groups
    B: removable blocks
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.structure.relaxation import Relaxation
from dms_bench.scaling.structure.topk import ascending_positions, averaged, hard_mask, normalised_rank

#: Masks of all elements, or of none, would need a threshold at infinity: they sum to this share of N less, or more.
_APART = 1e-7
#: Halvings of the interval that holds the threshold, and steps of Newton's method after them.
_HALVINGS, _NEWTON = 44, 3


class SoftTopK(torch.autograd.Function):
    """The masks of many units at once."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, number: Tensor, owner: Tensor, alpha: float) -> Tensor:
        """Return the masks, [E].

        Args:
            ctx: of autograd.
            scores: r, [E].
            number: k of every unit, in (0, N], [U].
            owner: the unit of each element, [E].
            alpha: scale of the distribution.
        """
        r, k = scores.double() / alpha, number.double()
        sizes = torch.bincount(owner, minlength=len(k)).to(k)
        k = k.minimum(sizes * (1 - _APART)).maximum(sizes * _APART)
        edges = r.new_zeros(len(k))
        low = edges.scatter_reduce(0, owner, r, "amin", include_self=False) + math.log(_APART)
        high = edges.scatter_reduce(0, owner, r, "amax", include_self=False) - math.log(_APART)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = edges.index_add(0, owner, _laplace(r - middle[owner])) > k
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        b = (low + high) / 2
        for _ in range(_NEWTON):
            away = r - b[owner]
            slope = edges.index_add(0, owner, torch.exp(-away.abs()) / 2)
            b = b + (edges.index_add(0, owner, _laplace(away)) - k) / slope
        away = r - b[owner]
        ctx.save_for_backward(away, owner)
        ctx.alpha, ctx.units = alpha, len(k)
        return _laplace(away).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Return the gradients of scores and numbers."""
        away, owner = ctx.saved_tensors
        zeros, g = away.new_zeros(ctx.units), gradient.double()
        # Relative to the nearest element, as far from all of them every density is nearly zero.
        nearest = zeros.scatter_reduce(0, owner, away.abs(), "amin", include_self=False)[owner]
        density = torch.exp(nearest - away.abs())
        share = density / zeros.index_add(0, owner, density)[owner]
        of_number = zeros.index_add(0, owner, share * g)
        of_scores = torch.exp(-away.abs()) / (2 * ctx.alpha) * (g - of_number[owner])
        return of_scores.to(gradient.dtype), of_number.to(gradient.dtype), None, None


def _laplace(x: Tensor) -> Tensor:
    """Return the distribution function of Laplace."""
    tail = torch.exp(-x.abs()) / 2
    return torch.where(x < 0, tail, 1 - tail)


class LapSum(Relaxation):
    """Learnt scores and a ratio per unit; `structure` holds the ratios a, [U], then the scores r, [E].

    Args:
        space: the search space.
        alpha: scale of the distribution; smaller is harder.
    """

    def __init__(self, space: SearchSpace, *, alpha: float = 0.1) -> None:
        super().__init__(space)
        units = space.units
        self.alpha = alpha
        self.structure = nn.Parameter(torch.cat([units.lower_ratio(), torch.zeros(units.total)]))
        self.register_buffer("_lower", units.lower_ratio(), persistent=False)
        self.register_buffer("_upper", units.upper_ratio(), persistent=False)
        self.register_buffer("_tied", space.tied, persistent=False)
        self._lower: Tensor
        self._upper: Tensor
        self._tied: Tensor

    @property
    def ratios(self) -> Tensor:
        """Pruning ratio a of every unit, [U]."""
        return self.structure[: len(self._sizes)]

    @property
    def scores(self) -> Tensor:
        """Score r of every element, [E]."""
        return self.structure[len(self._sizes) :]

    def soft_mask(self) -> Tensor:
        """Return masks that sum to (1 - a) N, [E]."""
        mask: Tensor = SoftTopK.apply(self.scores, (1 - self.ratios) * self._sizes, self._owner, self.alpha)  # type: ignore[no-untyped-call]
        return mask * 0 + 1 if self.observing else mask

    def hard_mask(self) -> Tensor:
        """Return the binary mask of the k highest scores of each unit, [E]."""
        positions = ascending_positions(self.scores.detach(), self._owner, self._starts)
        ranks = normalised_rank(positions.to(self.structure.dtype), self._sizes[self._owner])
        return hard_mask(ranks, self.bounded(self.structure.detach())[: len(self._sizes)][self._owner])

    def soft_size(self) -> tuple[Tensor, Tensor]:
        """Return (1 - a) N of the groups, [G], and the masks of blocks, [B]."""
        kept = (1 - self.ratios[: self.groups]) * self._sizes[: self.groups]
        return kept, self.soft_mask()[self.width_elements :]

    @property
    def reach(self) -> float:
        """Ratios lie in [0, 1]."""
        return 1.0

    def shrinking(self, *, depth: bool = True) -> Tensor:
        """Return 1 for the ratio of every unit that is not decided, [U + E]."""
        direction = torch.zeros_like(self.structure)
        direction[: self.groups if self.depth_frozen or not depth else len(self._sizes)] = 1
        return direction

    def bounded(self, parameter: Tensor) -> Tensor:
        """Return ratios within what the units may keep, and the scores, [U + E]."""
        ratios = parameter[: len(self._sizes)].maximum(self._lower).minimum(self._upper)
        return torch.cat([ratios, parameter[len(self._sizes) :]])

    def proposal(self) -> tuple[Tensor, Tensor]:
        """Return the real-valued counts (1 - a) N, and the scores."""
        structure = self.structure.detach().cpu()
        units = len(self._sizes)
        return (1 - structure[:units]) * self._sizes.cpu(), structure[units:]

    @torch.no_grad()
    def update(self, mask: Tensor, gradient: Tensor | None) -> None:
        """Keep the ratios in their range, and those of tied units equal."""
        structure = self.bounded(self.structure)
        structure[: len(self._sizes)] = averaged(structure[: len(self._sizes)], self._tied)
        self.structure.copy_(structure)
