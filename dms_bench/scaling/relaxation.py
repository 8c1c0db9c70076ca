"""What a search trains instead of a binary mask: the relaxations of table 2, one interface.

Shape legend:
    U: searched units (width groups, then stages)
    E: elements of all units
    G: width groups
    B: removable blocks of all stages
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.importance import update_importance
from dms_bench.scaling.space import SearchSpace
from dms_bench.scaling.topk import ascending_positions, averaged, kept_counts, soft_mask


class Relaxation(nn.Module, ABC):
    """A differentiable stand-in for the binary mask of a search space; its parameters are the structure's.

    Args:
        space: the search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        units = space.units
        self.groups, self.width_elements = len(space.groups), space.width_elements
        self.register_buffer("_owner", units.owner, persistent=False)
        self.register_buffer("_starts", torch.tensor(units.starts, dtype=torch.long), persistent=False)
        self.register_buffer("_sizes", torch.tensor(units.sizes, dtype=torch.float32), persistent=False)
        self.register_buffer("_minimum", torch.tensor(units.minimum, dtype=torch.float32), persistent=False)
        self._owner: Tensor
        self._starts: Tensor
        self._sizes: Tensor
        self._minimum: Tensor

    @abstractmethod
    def soft_mask(self) -> Tensor:
        """Return the mask that the network runs under, differentiable, [E]."""

    @abstractmethod
    def hard_mask(self) -> Tensor:
        """Return the binary mask that the structure stands for, [E]."""

    @abstractmethod
    def soft_size(self) -> tuple[Tensor, Tensor]:
        """Return what costs are computed from, differentiable: kept elements [G] and masks of blocks [B]."""

    @abstractmethod
    def wish(self) -> tuple[Tensor, Tensor]:
        """Return what the final cut starts from: number of elements per unit [U], and their importance [E]."""

    def anneal(self, progress: float) -> None:
        """Take up the finished share of the search, in [0, 1); most relaxations do not change with it."""

    def update(self, mask: Tensor, gradient: Tensor | None) -> None:
        """End a step: take up the mask that was used and its gradient (the same on all workers), both [E]."""

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.refresh()

    def refresh(self) -> None:
        """Compute anew what follows from the state, after that was loaded or changed."""

    def _counts(self, mask: Tensor) -> Tensor:
        """Sum a mask [E] over each unit, [U]."""
        return torch.zeros_like(self._sizes, dtype=mask.dtype).index_add(0, self._owner, mask)


class TopK(Relaxation):
    """Differentiable top-k (DMS): a pruning ratio per unit, elements ranked by importance.

    Args:
        space: the search space.
        temperature: factor on N in the mask's slope (equation 3).
        importance: taylor, snip, fisher or index.
        decay: decay of the importance's moving average; 0 keeps the last step only (equation 4).
        normalise: rank the importance (equation 2); False puts c itself in its place, c' = c (table 11).
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        temperature: float = 1.0,
        importance: str = "taylor",
        decay: float = 0.99,
        normalise: bool = True,
    ) -> None:
        super().__init__(space)
        self.importance_kind, self.decay, self.normalise = importance, decay, normalise
        units = space.units
        #: Pruning ratio a of every unit, [U]; kept elements are k = round((1 - a) N).
        self.ratios = nn.Parameter(units.lower_ratio())
        initial = torch.zeros(units.total)
        if importance == "index":  # the first elements matter most
            initial = -torch.arange(units.total, dtype=torch.float32)
        self.register_buffer("importance", initial)
        self.register_buffer("_slope", units.slope(temperature), persistent=False)
        self.register_buffer("_lower", units.lower_ratio(), persistent=False)
        self.register_buffer("_upper", units.upper_ratio(), persistent=False)
        self.register_buffer("_tied", space.tied, persistent=False)
        # Ranks change with the importance alone; `refresh` keeps them in step with it.
        self.register_buffer("_positions", torch.zeros(units.total), persistent=False)
        self.register_buffer("_known", torch.zeros((), dtype=torch.bool), persistent=False)
        self._ranked: tuple[int, int] | None = None
        self.importance: Tensor
        self._slope: Tensor
        self._lower: Tensor
        self._upper: Tensor
        self._tied: Tensor
        self._positions: Tensor
        self._known: Tensor

    def soft_mask(self) -> Tensor:
        """Equations (2) and (3) for all units at once, [E]; ones before importance is known."""
        self.refresh()
        normalised = self._positions / self._sizes[self._owner] if self.normalise else self.importance
        mask = soft_mask(normalised, self.ratios[self._owner], self._slope[self._owner])
        # Adding nothing keeps the graph: gradients of the first step give the importance.
        return torch.where(self._known, mask, mask * 0 + 1)

    @torch.no_grad()
    def refresh(self) -> None:
        """Rank the elements anew if their importance has changed."""
        if torch.compiler.is_compiling():
            return  # `update` has ranked them
        present = (id(self.importance), self.importance._version)
        if self._ranked != present:
            # Not in place: a backward pass may still need the old ones.
            positions = ascending_positions(self.importance, self._owner, self._starts)
            self._positions, self._known = positions.to(self.importance.dtype), self.importance.any()
            self._ranked = present

    def hard_mask(self) -> Tensor:
        """Return the binary mask of the k most important elements of each unit, [E]."""
        self.refresh()
        return (self._positions >= (self._sizes - self._kept())[self._owner]).to(self.ratios.dtype)

    def _kept(self) -> Tensor:
        return kept_counts(self.ratios.detach(), self._sizes, self._minimum)

    def soft_size(self) -> tuple[Tensor, Tensor]:
        """Return widths from the ratios [G], blocks from their masks [B]."""
        kept = (1 - self.ratios[: self.groups]) * self._sizes[: self.groups]
        return kept, self.soft_mask()[self.width_elements :]

    def wish(self) -> tuple[Tensor, Tensor]:
        """Return the real-valued counts (1 - a) N, and the importance."""
        return (1 - self.ratios.detach().cpu()) * self._sizes.cpu(), self.importance.detach().cpu()

    @torch.no_grad()
    def update(self, mask: Tensor, gradient: Tensor | None) -> None:
        """Take up the importance (4), keep the ratios in their range, and those of tied units equal."""
        if gradient is not None:
            update_importance(self.importance, self.importance_kind, mask, gradient, self.decay)
        self.refresh()
        ratios = averaged(self.ratios, self._tied)
        self.ratios.copy_(torch.minimum(torch.maximum(ratios, self._lower), self._upper))


class StraightThroughTopK(TopK):
    """Gradient estimation (GET): a hard top-k forward, dm/da = -1 for every element backward.

    k = floor((1 - a) N), with at least the unit's minimum kept (as published a layer can lose all).
    """

    def soft_mask(self) -> Tensor:
        """Return hard(m) + e - sg(e) with e = 1 - a, [E]."""
        keep = (1 - self.ratios)[self._owner]
        return self.hard_mask() + (keep - keep.detach())

    def _kept(self) -> Tensor:
        # Half a millionth of an element: a product that rounding left just below a whole number is whole.
        counts = ((1 - self.ratios.detach().double()) * self._sizes + 5e-7 * self._sizes).floor()
        return torch.minimum(torch.maximum(counts.to(self._sizes.dtype), self._minimum), self._sizes)
