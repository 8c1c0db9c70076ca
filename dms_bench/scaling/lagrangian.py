"""A search brought to its budget by Lagrange multipliers, which rise for as long as it is missed.

For each constraint, with e the cost less the falling target as a share of the whole supernet's cost, the loss gains

    l1 e + l2 e^2,

and, where a relaxation says how undecided it is (`RetentionGates.indecision`), l3 times that. The structure descends in
this loss while the multipliers ascend, from zero. Wang et al. 2020 (arXiv 1910.04732) and Sheared LLaMA (arXiv
2310.06694) for hard-concrete gates, Huang et al. 2026 (arXiv 2603.08065) for the third; rates are those of its code,
which takes 1,000 steps: in a search of fewer, multipliers rise the faster, and come as far.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.budget import Budget

#: Learning rates of the multipliers, l1 and l3, then l2, in a search of so many steps.
LINEAR_RATE, SQUARE_RATE, STEPS = 2e-2, 4e-1, 1000


class Lagrangian(nn.Module):
    """The multipliers, and what makes them rise.

    Args:
        constraints: how many the budget has, C.
        device: of the structure.
    """

    def __init__(self, constraints: int, device: torch.device) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.zeros(constraints, device=device))
        self.square = nn.Parameter(torch.zeros(constraints, device=device))
        self.decision = nn.Parameter(torch.zeros((), device=device))
        self.optimizer = torch.optim.Adam(
            [{"params": [self.linear, self.decision]}, {"params": [self.square]}], maximize=True
        )
        self.progress = 0.0

    def begin_step(self, progress: float) -> None:
        """Take up the finished share of the search, in [0, 1)."""
        for group, rate in zip(self.optimizer.param_groups, (LINEAR_RATE, SQUARE_RATE), strict=True):
            group["lr"] = rate * STEPS * (progress - self.progress)
        self.progress = progress

    def loss(self, budget: Budget, size: tuple[Tensor, Tensor], indecision: Tensor | None = None) -> Tensor:
        """Return what the budget adds to the loss, a scalar; below zero where the search is under its target.

        Args:
            budget: the falling target.
            size: what costs are computed from, kept elements [G] and masks of blocks [B].
            indecision: of the relaxation, a scalar.
        """
        excess = torch.stack([(bound.cost(*size) - bound.target) / bound.whole for bound in budget.constraints])
        loss = (self.linear * excess + self.square * excess.square()).sum()
        return loss if indecision is None else loss + self.decision * indecision

    def step(self) -> None:
        """Raise the multipliers by the gradients of the last backward pass."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def get_extra_state(self) -> dict[str, Any]:
        """The optimiser's state, and how far the search is."""
        return {"optimizer": self.optimizer.state_dict(), "progress": self.progress}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up what `get_extra_state` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = state["progress"]
