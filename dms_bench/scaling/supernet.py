"""A network whose width and depth are learnt by gradient descent.

Shape legend:
    U: searched units (width groups, then stages)
    E: elements of all units
    G: width groups
    B: removable blocks of all stages
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dms_bench.kernels import guard
from dms_bench.scaling.architecture import Architecture
from dms_bench.scaling.budget import Budget
from dms_bench.scaling.example import AnyExample
from dms_bench.scaling.find import find_space
from dms_bench.scaling.fit import TOLERANCE, fit_to_budget, nearest
from dms_bench.scaling.masks.hooks import MaskedForward
from dms_bench.scaling.projection import Projection
from dms_bench.scaling.schedule import Schedule
from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.structure.freeze import decided_depth, filled_depth, ranked_by_depth
from dms_bench.scaling.structure.relaxation import Relaxation, TopK
from dms_bench.scaling.twin import Twins, twins_are_exact

#: The phases of a search that says nothing else.
WHOLE_SEARCH = Schedule()


class Supernet(nn.Module):
    """Wraps a network so that one pruning ratio per width group and stage is trained with it.

    The wrapped network keeps its own parameters and forward signature. In your own training loop:
    give `structure_parameters()` an optimiser of their own, begin each step by `begin_step(progress, budget)`, add
    `resource_loss` of the budget that it returns to the loss, and call `update()` after both optimisers' steps. With
    `begin_step(progress, budget, projected=True)` the structure is held at the budget, and there is no resource loss.

    Args:
        model: the network, trained in place.
        space: its search space, from `find_space`; or an example input to find it with (see `Example`).
        relaxation: what is trained in place of binary masks; the differentiable top-k of the options below by default.
        temperature: factor on N in the mask's slope (equation 3).
        importance: taylor, snip, fisher or index.
        block_importance: that of blocks, where not the same.
        decay: decay of the importance's moving average; 0 keeps the last step only (equation 4).
        skip_zeros: run what masks make zero no longer, where that is exact and worth it (`dms_bench.scaling.twin`);
            `begin_step` decides.

    Raises:
        ValueError: the space is empty, of another network, or was not proven; an option has no meaning.
    """

    def __init__(
        self,
        model: nn.Module,
        space: SearchSpace | AnyExample,
        relaxation: Relaxation | None = None,
        *,
        temperature: float = 1.0,
        importance: str = "taylor",
        block_importance: str | None = None,
        decay: float = 0.99,
        skip_zeros: bool = False,
    ) -> None:
        super().__init__()
        guard()
        self.space = space if isinstance(space, SearchSpace) else find_space(model, space)
        self.space.check_searchable()
        self.space.check_fits({**dict(model.named_parameters()), **dict(model.named_buffers())})
        self.model = model
        self.relaxation = relaxation or TopK(
            self.space, temperature=temperature, importance=importance, block_importance=block_importance, decay=decay
        )
        self.relaxation.to(next(model.parameters()).dtype)  # masks as exact as a network in double precision
        self._masked = MaskedForward(model, self.space)
        self._twins = Twins(self.space) if skip_zeros and twins_are_exact(self.space) else None
        # Zeros added to the mask: their gradient is the mask's, summed over the passes of a step.
        like = self.relaxation.depth
        self._probe = torch.zeros(self.space.units.total, dtype=like.dtype, device=like.device, requires_grad=True)
        self._mask = self._probe.detach()
        self._hard: Tensor | None = None
        #: Of the hook by which gradients run along the budget; None where they are left as they are.
        self._along_budget: RemovableHandle | None = None

    @property
    def ratios(self) -> Tensor:
        """Pruning ratio a of every unit, where the relaxation has them, [U]."""
        return cast(Tensor, self.relaxation.ratios)

    @property
    def importance(self) -> Tensor:
        """Importance of every element, where the relaxation has it, [E]."""
        return cast(Tensor, self.relaxation.importance)

    @property
    def depth_frozen(self) -> bool:
        """Whether it is decided which blocks stay; setting it decides, or leaves it to the search again."""
        return self.relaxation.depth_frozen

    @depth_frozen.setter
    def depth_frozen(self, frozen: bool) -> None:
        if frozen and not self.depth_frozen:
            self.freeze_depth()
        elif not frozen and self.depth_frozen:
            self.relaxation.freeze_depth(None)

    @torch.no_grad()
    def freeze_depth(self, budget: Budget | None = None, *, filled: bool = False) -> None:
        """Decide which blocks stay, for the rest of the search and the cut.

        Args:
            budget: its cost stays within that of one block of what the search pays for; MACs where there is none.
            filled: as many blocks stay as the widths need to use the budget up.
        """
        kept, soft = (size.cpu() for size in self.relaxation.soft_size())
        hard = self.relaxation.hard_mask()[self.space.width_elements :].cpu()
        cost = self.space.macs_model if budget is None else budget.to(torch.device("cpu")).usage
        depth = decided_depth(self.space, cost, kept, soft, hard)
        self.relaxation.freeze_depth(filled_depth(self.space, cost, soft, depth) if filled and budget else depth)

    def begin_step(
        self, progress: float, budget: Budget, schedule: Schedule = WHOLE_SEARCH, *, projected: bool = False
    ) -> Budget:
        """Begin a step in the phase that it belongs to, and return the budget that holds in it.

        Args:
            progress: finished share of the search, in [0, 1).
            budget: what the search is to arrive at.
            schedule: when its phases end.
            projected: hold the structure at the budget (`dms_bench.scaling.projection`).
        """
        self.relaxation.observing = progress < schedule.observe
        self.relaxation.depth_first = (
            schedule.depth is not None and bool(self.space.stages) and (schedule.observe <= progress < schedule.depth)
        )
        self.relaxation.anneal(progress)
        projection = Projection(self.relaxation, self.soft_size) if projected and progress >= schedule.observe else None
        if projection is not None and progress < schedule.decay:
            budget = projection.from_largest(budget)
        falling = budget.falling(progress, schedule.decay, schedule.observe)
        if progress < schedule.depth_decided:
            self.depth_frozen = False
        elif not self.depth_frozen:
            self.freeze_depth(falling, filled=projected)
        if self._along_budget is not None:
            self._along_budget.remove()
            self._along_budget = None
        if projection is not None:
            self._along_budget = projection.meet(falling)
        if self._twins is not None:
            self._twins.begin_step(self._alive())
        return falling

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network under the present masks (those given in `fixed`, there)."""
        mask = self._hard
        if mask is None:
            mask = self.soft_mask()
            if torch.is_grad_enabled():
                self._mask = mask.detach()
                mask = mask + self._probe
        twins = None if torch.compiler.is_compiling() else self._twins
        twin = None if twins is None else twins.of(self.model, mask)
        if twin is not None:
            return twin(mask, args, kwargs)
        with self._masked.using(mask):
            return self.model(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Supernet:
        """Move what is neither parameter nor buffer along with them."""
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        like = self.hard_mask()
        self._probe = torch.zeros(self.space.units.total, dtype=like.dtype, device=like.device, requires_grad=True)
        return self

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the wrapped network's own parameters, which the structure's are not among."""
        yield from self.model.named_parameters()

    def structure_parameters(self) -> list[nn.Parameter]:
        """Return what an optimiser of its own has to train: the relaxation's parameters."""
        return list(self.relaxation.parameters())

    def soft_mask(self) -> Tensor:
        """Return the masks of the relaxation, those of a frozen depth binary, [E]."""
        return self._at_depth(self.relaxation.soft_mask())

    def hard_mask(self) -> Tensor:
        """Return the binary mask that the structure stands for, [E]."""
        return self._at_depth(self.relaxation.hard_mask())

    def soft_size(self) -> tuple[Tensor, Tensor]:
        """Return what costs are computed from: kept elements [G] and masks of the blocks [B]."""
        kept, blocks = self.relaxation.soft_size()
        return kept, self.relaxation.depth.to(blocks) if self.depth_frozen else blocks

    @torch.no_grad()
    def _alive(self) -> Tensor:
        """Return whether each element has to run in this step, [E]."""
        alive = self.soft_mask() != 0
        widths, blocks = self.relaxation.silent_zeros
        alive[: self.space.width_elements] |= not widths
        alive[self.space.width_elements :] |= not (blocks or self.depth_frozen)  # whose masks no longer change
        return alive

    def proposal(self) -> tuple[Tensor, Tensor]:
        """Return what the final cut starts from: number of elements per unit [U], and their importance [E]."""
        counts, importance = self.relaxation.proposal()
        if self.depth_frozen:
            groups, width, depth = len(self.space.groups), self.space.width_elements, self.relaxation.depth.cpu()
            stay = [stage.sum().to(counts) for stage in torch.split(depth, [stage.size for stage in self.space.stages])]
            counts = torch.stack([*counts[:groups], *stay])
            importance = torch.cat([importance[:width], ranked_by_depth(importance[width:], depth)])
        return counts, importance

    def _at_depth(self, mask: Tensor) -> Tensor:
        """Put the blocks that stay where the depth is frozen into a mask, [E]."""
        if not self.depth_frozen:
            return mask
        return torch.cat([mask[: self.space.width_elements], self.relaxation.depth.to(mask)])

    def resource_loss(self, budget: Budget) -> Tensor:
        """Equation (6): log(r_c / r_t) above the target, else zero; scalar.

        Args:
            budget: r_t, on the device of the network.
        """
        return budget.loss(*self.soft_size()).to(self._probe.dtype)

    @torch.no_grad()
    def update(self, loss_scale: float = 1.0) -> None:
        """Take up the last step's gradients in the importance and keep the ratios in their range.

        Call once per optimiser step, after the optimisers. With several workers the gradients are
        averaged over them first, so that masks stay identical. A step whose gradients are not all finite
        leaves the importance as it was.

        Args:
            loss_scale: what the loss was multiplied by before its backward pass: with a `torch.amp.GradScaler`
                its `get_scale()`, asked for before its `update()`.
        """
        gradient = self._probe.grad
        if gradient is not None and loss_scale != 1:
            gradient = gradient / loss_scale
        if gradient is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(gradient)
            gradient /= torch.distributed.get_world_size()
        self.relaxation.update(self._mask, gradient)
        self._probe.grad = None
        self._masked.state.forget()
        if self._twins is not None:
            self._twins.end_step()

    @contextmanager
    def fixed(self, mask: Tensor) -> Iterator[None]:
        """Run forward passes under a given mask, [E]: of an architecture, or ones for the whole network."""
        self._hard = mask.to(self._probe.device, self._probe.dtype)
        try:
            yield
        finally:
            self._hard = None

    def architecture(self, budget: Budget | None = None) -> Architecture:
        """Return the searched architecture, cut to a budget where one is given.

        A frozen depth is the architecture's, unless even the fewest elements are above the budget at that depth.

        Args:
            budget: met within 1 % where the space, at a frozen depth, is fine and large enough; where it is not, a
                warning says between what the space reaches.
        """
        counts, importance = self.proposal()
        if budget is None:
            mask = self.hard_mask().cpu().float()
            kept = self.space.kept_elements(mask)
            free = self.space.round_to == 1 and not any(group.tie for group in self.space.groups)
            return self.space.architecture(mask if free else nearest(self.space, kept, importance))
        budget = budget.to(torch.device("cpu"))
        mask = fit_to_budget(self.space, counts, importance, budget, depth_fixed=self.depth_frozen)
        self._warn_of_a_miss(mask, budget)
        return self.space.architecture(mask)

    def _warn_of_a_miss(self, mask: Tensor, budget: Budget) -> None:
        groups, width = len(self.space.groups), self.space.width_elements

        def share(kept: Tensor) -> float:
            return float(budget.usage(self.space.kept_elements(kept)[:groups], kept[width:]))

        cost = share(mask)
        if abs(cost - 1) <= TOLERANCE:
            return
        units = self.space.units
        fewest = torch.cat([torch.arange(size) < low for size, low in zip(units.sizes, units.minimum, strict=True)])
        warnings.warn(
            f"the architecture costs {cost:.3g} times its budget: the space reaches from {share(fewest.float()):.3g} "
            f"to {share(self.space.full()):.3g} times it"
            + (", and the depth was decided" if self.depth_frozen and self.space.stages else ""),
            stacklevel=3,
        )

    def extra_repr(self) -> str:
        """Show the size of the space."""
        elements = math.fsum(self.space.units.sizes)
        return f"groups={len(self.space.groups)}, stages={len(self.space.stages)}, elements={elements:.0f}"
