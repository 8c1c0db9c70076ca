"""A network whose width and depth are learnt by gradient descent.

Shape legend:
    U: searched units (width groups, then stages)
    E: elements of all units
    G: width groups
    B: removable blocks of all stages
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.architecture import Architecture
from dms_bench.scaling.budget import Budget
from dms_bench.scaling.build import find_space
from dms_bench.scaling.fit import fit_to_budget
from dms_bench.scaling.importance import update_importance
from dms_bench.scaling.masking import MaskedForward
from dms_bench.scaling.space import SearchSpace
from dms_bench.scaling.topk import ascending_positions, kept_counts, soft_mask


class Supernet(nn.Module):
    """Wraps a network so that one pruning ratio per width group and stage is trained with it.

    The wrapped network keeps its own parameters and forward signature. In your own training loop:
    give `structure_parameters()` an optimiser of their own, add `resource_loss(budget)` to the
    loss, and call `update()` after both optimisers' steps.

    Args:
        model: the network, trained in place.
        space: its search space, from `find_space`; or an example input to find it with.
        temperature: factor on N in the mask's slope (equation 3).
        importance: taylor, snip, fisher or index.
        decay: decay of the importance's moving average; 0 keeps the last step only (equation 4).
    """

    def __init__(
        self,
        model: nn.Module,
        space: SearchSpace | Tensor,
        *,
        temperature: float = 1.0,
        importance: str = "taylor",
        decay: float = 0.99,
    ) -> None:
        super().__init__()
        self.space = find_space(model, space) if isinstance(space, Tensor) else space
        self.model = model
        self.importance_kind, self.decay = importance, decay
        self.depth_frozen = False
        units = self.space.units
        #: Pruning ratio a of every unit, [U]; kept elements are k = round((1 - a) N).
        self.ratios = nn.Parameter(torch.zeros(len(units.sizes)))
        initial = torch.zeros(units.total)
        if importance == "index":  # the first elements matter most
            initial = -torch.arange(units.total, dtype=torch.float32)
        self.register_buffer("importance", initial)
        self.register_buffer("_owner", units.owner, persistent=False)
        self.register_buffer("_starts", torch.tensor(units.starts, dtype=torch.long), persistent=False)
        self.register_buffer("_sizes", torch.tensor(units.sizes, dtype=torch.float32), persistent=False)
        self.register_buffer("_minimum", torch.tensor(units.minimum, dtype=torch.float32), persistent=False)
        self.register_buffer("_slope", units.slope(temperature), persistent=False)
        self.register_buffer("_upper", units.upper_ratio(), persistent=False)
        # Ranks change with the importance alone; `_rank` keeps them in step with it.
        self.register_buffer("_positions", torch.zeros(units.total), persistent=False)
        self.register_buffer("_known", torch.zeros((), dtype=torch.bool), persistent=False)
        self._ranked: tuple[int, int] | None = None
        self._masked = MaskedForward(model, self.space)
        # Zeros added to the mask: their gradient is the mask's, summed over the passes of a step.
        self._probe = torch.zeros(units.total, requires_grad=True)
        self._mask = torch.zeros(units.total)
        self._hard: Tensor | None = None
        self.importance: Tensor
        self._positions: Tensor
        self._known: Tensor
        self._owner: Tensor
        self._starts: Tensor
        self._sizes: Tensor
        self._minimum: Tensor
        self._slope: Tensor
        self._upper: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network under the present masks (those given in `fixed`, there)."""
        mask = self._hard
        if mask is None:
            mask = self.soft_mask()
            if torch.is_grad_enabled():
                self._mask = mask.detach()
                mask = mask + self._probe
        with self._masked.using(mask):
            return self.model(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Supernet:
        """Move what is neither parameter nor buffer along with them."""
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._probe = torch.zeros_like(self.importance, requires_grad=True)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._rank()

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the wrapped network's own parameters, which the structure's are not among."""
        yield from self.model.named_parameters()

    def structure_parameters(self) -> list[nn.Parameter]:
        """Return what an optimiser of its own has to train: the pruning ratios."""
        return [self.ratios]

    def soft_mask(self) -> Tensor:
        """Equations (2) and (3) for all units at once, [E]; ones before importance is known."""
        self._rank()
        normalised = self._positions / self._sizes[self._owner]
        mask = soft_mask(normalised, self.ratios[self._owner], self._slope[self._owner])
        # Adding nothing keeps the graph: gradients of the first step give the importance.
        mask = torch.where(self._known, mask, mask * 0 + 1)
        if self.depth_frozen:
            width = self.space.width_elements
            mask = torch.cat([mask[:width], self.hard_mask()[width:]])
        return mask

    @torch.no_grad()
    def _rank(self) -> None:
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
        self._rank()
        kept = kept_counts(self.ratios.detach(), self._sizes, self._minimum)
        return (self._positions >= (self._sizes - kept)[self._owner]).to(self.ratios.dtype)

    def soft_size(self) -> tuple[Tensor, Tensor]:
        """Return what costs are computed from: widths from the ratios [G], blocks from their masks [B]."""
        groups = len(self.space.groups)
        kept = (1 - self.ratios[:groups]) * self._sizes[:groups]
        return kept, self.soft_mask()[self.space.width_elements :]

    def resource_loss(self, budget: Budget) -> Tensor:
        """Equation (6): log(r_c / r_t) above the target, else zero; scalar.

        Args:
            budget: r_t, on the device of the network.
        """
        return budget.loss(*self.soft_size()).to(self.ratios.dtype)

    @torch.no_grad()
    def update(self) -> None:
        """Take up the last step's gradients in the importance and keep the ratios in their range.

        Call once per optimiser step, after the optimisers. With several workers the gradients are
        averaged over them first, so that masks stay identical.
        """
        gradient = self._probe.grad
        if gradient is not None:
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(gradient)
                gradient /= torch.distributed.get_world_size()
            update_importance(self.importance, self.importance_kind, self._mask, gradient, self.decay)
        self._rank()
        self._probe.grad = None
        self._masked.state.forget()
        self.ratios.clamp_(min=0).copy_(torch.minimum(self.ratios, self._upper))

    @contextmanager
    def fixed(self, mask: Tensor) -> Iterator[None]:
        """Run forward passes under a given mask, [E]: of an architecture, or ones for the whole network."""
        self._hard = mask.to(self.ratios.device, self.ratios.dtype)
        try:
            yield
        finally:
            self._hard = None

    def architecture(self, budget: Budget | None = None) -> Architecture:
        """Return the searched architecture, cut to a budget where one is given.

        Args:
            budget: met within 1 % from below where the space is fine enough.
        """
        if budget is None:
            return self.space.architecture(self.hard_mask())
        counts = (1 - self.ratios.detach().cpu()) * self._sizes.cpu()
        mask = fit_to_budget(self.space, counts, self.importance.detach().cpu(), budget.to(torch.device("cpu")))
        return self.space.architecture(mask)

    def extra_repr(self) -> str:
        """Show the size of the space."""
        elements = math.fsum(self.space.units.sizes)
        return f"groups={len(self.space.groups)}, stages={len(self.space.stages)}, elements={elements:.0f}"
