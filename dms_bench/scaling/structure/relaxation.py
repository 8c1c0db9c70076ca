"""What a search trains instead of a binary mask: the relaxations of table 2, one interface.

Shape legend:
    U: searched units (width groups, then stages)
    E: elements of all units
    G: width groups
    B: removable blocks of all stages
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.structure.importance import IMPORTANCE, VANISHING, update_importance
from dms_bench.scaling.structure.topk import (
    ascending_positions,
    averaged,
    hard_mask,
    normalised_rank,
    slopes,
    soft_mask,
)

#: Precisions in which a structure is never kept: ranks above 256 would fall together.
_COARSE = (torch.bfloat16, torch.float16)


class Relaxation(nn.Module, ABC):
    """A differentiable stand-in for the binary mask of a search space; its parameters are the structure's.

    Stays in single precision where a network is moved to bf16 or fp16.

    Args:
        space: the search space.

    Attributes:
        observing: nothing is decided yet: importance is collected, where there is one, under masks that are 1.
        depth_first: the depth alone is decided: widths stay whole, where a relaxation can do that.
        depth_frozen: the depth is decided, and `depth` says how.
        depth: which blocks stay where the depth is frozen, 1 or 0, [B].
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        units = space.units
        self.groups, self.width_elements = len(space.groups), space.width_elements
        self.observing = self.depth_first = self.depth_frozen = False
        self.register_buffer("depth", torch.ones(units.total - space.width_elements))
        self.register_buffer("_depth_frozen", torch.zeros((), dtype=torch.bool))
        self.depth: Tensor
        self._depth_frozen: Tensor
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
    def proposal(self) -> tuple[Tensor, Tensor]:
        """Return what the final cut starts from: number of elements per unit [U], and their importance [E]."""

    @property
    def silent_zeros(self) -> tuple[bool, bool]:
        """Whether what the gradients of masks of zero are changes nothing, now and later: of widths, of blocks."""
        return False, False

    @property
    def reach(self) -> float:
        """The scalar by which, along `shrinking`, every unit comes to its fewest elements, and back to its most."""
        raise self._unshiftable()

    def shrinking(self, *, depth: bool = True) -> Tensor:
        """Return the direction in which all units that are not decided shrink alike; like the parameter.

        Args:
            depth: stages as well as groups.

        Raises:
            TypeError: the relaxation has no such direction, and its search cannot be projected.
        """
        raise self._unshiftable()

    def _unshiftable(self) -> TypeError:
        return TypeError(f"{type(self).__name__} cannot be shifted to a budget")

    def bounded(self, parameter: Tensor) -> Tensor:
        """Return values of the parameter within their range."""
        return parameter

    def anneal(self, progress: float) -> None:
        """Take up the finished share of the search, in [0, 1); most relaxations do not change with it."""

    def indecision(self) -> Tensor | None:
        """Return how far elements are from being kept or gone, a scalar, where multipliers shall drive it to zero."""
        return None

    def update(self, mask: Tensor, gradient: Tensor | None) -> None:
        """End a step: take up the mask that was used and its gradient (the same on all workers), both [E]."""

    def freeze_depth(self, depth: Tensor | None) -> None:
        """Decide which blocks stay, [B]; None leaves the depth to the search again."""
        self.depth_frozen = depth is not None
        self._depth_frozen.fill_(self.depth_frozen)
        if depth is not None:
            self.depth.copy_(depth)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.depth_frozen = bool(self._depth_frozen)
        self.refresh()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Relaxation:
        """Move to another device or precision, but to no coarse one."""

        def exact(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype in _COARSE else moved

        super()._apply(exact, recurse)  # type: ignore[no-untyped-call]
        return self

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
        block_importance: that of blocks, where not the same.
        decay: decay of the importance's moving average; 0 keeps the last step only (equation 4).
        normalise: rank the importance (equation 2); False puts c itself in its place, c' = c (table 11).
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        temperature: float = 1.0,
        importance: str = "taylor",
        block_importance: str | None = None,
        decay: float = 0.99,
        normalise: bool = True,
    ) -> None:
        super().__init__(space)
        for kind in (importance, block_importance or importance):
            if kind not in (*IMPORTANCE, "index"):
                raise ValueError(f"importance is one of {', '.join(IMPORTANCE)} or index: {kind!r}")
        self.importance_kind, self.block_importance_kind = importance, block_importance or importance
        self.decay, self.normalise = decay, normalise
        units = space.units
        #: Pruning ratio a of every unit, [U]; kept elements are k = round((1 - a) N).
        self.ratios = nn.Parameter(units.lower_ratio())
        initial = torch.zeros(units.total)
        for elements, kind in self._kinds():
            if kind == "index":  # the first elements matter most
                initial[elements] = -torch.arange(units.total, dtype=torch.float32)[elements]
        self.register_buffer("importance", initial)
        self.register_buffer("_slope", slopes(units, temperature), persistent=False)
        self.register_buffer("_lower", units.lower_ratio(), persistent=False)
        self.register_buffer("_upper", units.upper_ratio(), persistent=False)
        self.register_buffer("_tied", space.tied, persistent=False)
        #: Ratios of the stages when their depth was frozen.
        self.register_buffer("_frozen_ratios", units.lower_ratio()[len(space.groups) :])
        # Ranks change with the importance alone; `refresh` keeps them in step with it.
        self.register_buffer("_positions", torch.zeros(units.total), persistent=False)
        self.register_buffer("_known", torch.zeros((), dtype=torch.bool), persistent=False)
        self._ranked: tuple[int, int] | None = None
        self.importance: Tensor
        self._slope: Tensor
        self._lower: Tensor
        self._upper: Tensor
        self._tied: Tensor
        self._frozen_ratios: Tensor
        self._positions: Tensor
        self._known: Tensor

    def _kinds(self) -> tuple[tuple[slice, str], ...]:
        """Return which elements have which importance: widths, then blocks."""
        width = self.width_elements
        return (slice(width), self.importance_kind), (slice(width, None), self.block_importance_kind)

    def soft_mask(self) -> Tensor:
        """Equations (2) and (3) for all units at once, [E]; ones for what is not decided yet."""
        self.refresh()
        mask = self._relaxed()
        # Adding nothing keeps the graph: gradients of these steps give the importance.
        decides = self._known & (not self.observing)
        if self.depth_first:
            decides = decides & (torch.arange(len(mask), device=mask.device) >= self.width_elements)
        return torch.where(decides, mask, mask * 0 + 1)

    def _relaxed(self) -> Tensor:
        normalised = self._ranks() if self.normalise else self.importance
        return soft_mask(normalised, self.ratios[self._owner], self._slope[self._owner])

    def _ranks(self) -> Tensor:
        return normalised_rank(self._positions, self._sizes[self._owner])

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
        return hard_mask(self._ranks(), self.bounded(self.ratios.detach())[self._owner])

    @property
    def silent_zeros(self) -> tuple[bool, bool]:
        """Masks below the floor have no slope, and importances of a product with the mask vanish with it."""
        return self.importance_kind in VANISHING, self.block_importance_kind in VANISHING

    @property
    def reach(self) -> float:
        """Ratios lie in [0, 1]."""
        return 1.0

    def shrinking(self, *, depth: bool = True) -> Tensor:
        """Return 1 for the ratio of every unit that is not decided, [U]."""
        direction = torch.ones_like(self.ratios)
        if self.depth_frozen or not depth:
            direction[self.groups :] = 0
        if self.depth_first:
            direction[: self.groups] = 0
        return direction

    def bounded(self, parameter: Tensor) -> Tensor:
        """Return ratios within what the units may keep, [U]."""
        return torch.minimum(torch.maximum(parameter, self._lower), self._upper)

    def soft_size(self) -> tuple[Tensor, Tensor]:
        """Return widths from the ratios [G], blocks from their masks [B]."""
        kept = (1 - self.ratios[: self.groups]) * self._sizes[: self.groups]
        return kept, self.soft_mask()[self.width_elements :]

    def proposal(self) -> tuple[Tensor, Tensor]:
        """Return the real-valued counts (1 - a) N, and the importance."""
        return (1 - self.ratios.detach().cpu()) * self._sizes.cpu(), self.importance.detach().cpu()

    @torch.no_grad()
    def freeze_depth(self, depth: Tensor | None) -> None:
        """Decide which blocks stay, [B], and hold the ratios of the stages as they are."""
        super().freeze_depth(depth)
        self._frozen_ratios.copy_(self.ratios[self.groups :])

    @torch.no_grad()
    def update(self, mask: Tensor, gradient: Tensor | None) -> None:
        """Take up the importance (4), keep the ratios in their range, and those of tied units equal."""
        if gradient is not None:
            update_importance(self.importance, self._kinds(), mask, gradient, self.decay)
        self.refresh()
        self.ratios.copy_(self.bounded(averaged(self.ratios, self._tied)))
        if self.depth_frozen:  # an optimiser's momentum moves on where gradients are zero
            self.ratios[self.groups :] = self._frozen_ratios
        if self.depth_first:
            self.ratios[: self.groups] = self._lower[: self.groups]


class StraightThroughTopK(TopK):
    """Gradient estimation (GET): a hard top-k forward, dm/da = -1 for every element backward.

    k = round((1 - a) N) as everywhere here; the authors' code has k = floor((1 - a) N), by which a layer can lose all.
    """

    @property
    def silent_zeros(self) -> tuple[bool, bool]:
        """The gradient of every element moves its unit's ratio."""
        return False, False

    def _relaxed(self) -> Tensor:
        """Return hard(m) + e - sg(e) with e = 1 - a, [E]."""
        keep = (1 - self.ratios)[self._owner]
        return self.hard_mask() + (keep - keep.detach())
