"""One search for several budgets (`budgets_in_one`).

A target that falls to the smallest budget passes the larger ones on its way: as it does, the network is cut for each of
them, with the weights that it has then (a moving average of weights, where the recipe asks for one, serves the last
budget alone). A router is asked for all budgets in turn, as in Nemotron Elastic, and answers for each in the end; its
depth is never frozen, since every budget has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from dms_bench.errors import UserError
from dms_bench.methods.gradient.spec import GradientSpec
from dms_bench.methods.gradient.structure import DmsStructure
from dms_bench.scaling import Budget, Supernet
from dms_bench.scaling.structure.router import Router


class InOne(DmsStructure):
    """What such a search adds to every training step.

    Args:
        supernet: what is searched.
        spec: the method's options.
        budgets: from large to small.
        keep: is told the position of a budget whose network is to be cut now.
        trains_weights: whether the search updates weights.
    """

    def __init__(
        self,
        supernet: Supernet,
        spec: GradientSpec,
        budgets: Sequence[Budget],
        keep: Callable[[int], None],
        *,
        trains_weights: bool,
    ) -> None:
        super().__init__(supernet, spec, budgets[-1], trains_weights=trains_weights)
        self.budgets, self.keep, self.kept, self.steps = budgets, keep, 0, 0
        self.router = supernet.relaxation if isinstance(supernet.relaxation, Router) else None
        if self.router is not None:
            self.schedule = replace(self.schedule, freezes=False)

    def begin_step(self, progress: float) -> None:
        """Ask the router for the budget whose turn it is; go on as any search does."""
        if self.router is not None:
            self.router.budget = self.steps % len(self.budgets)
            self.final = self.budgets[self.router.budget].to(self.device)
        super().begin_step(progress)

    def end_step(self) -> None:
        """Step as any search does, then have the networks cut whose budgets the target has come to."""
        super().end_step()
        self.steps += 1
        while self.router is None and self.kept < len(self.budgets) - 1 and self._passed(self.budgets[self.kept]):
            self.keep(self.kept)
            self.kept += 1

    def finish(self) -> None:
        """Have the networks cut that are left: all of a router, else the one for the smallest budget."""
        for position in range(self.kept, len(self.budgets)):
            if self.router is not None:
                self.router.budget = position
            self.keep(position)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of any search, and which networks are cut."""
        return super().state_dict() | {"kept": self.kept, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        super().load_state_dict(state)
        self.kept, self.steps = state["kept"], state["steps"]

    def _passed(self, budget: Budget) -> bool:
        targets = zip(self.budget.constraints, budget.constraints, strict=True)
        return all(present.target <= asked.target for present, asked in targets)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Give a model the weights back that it has, as the search goes on with them."""
    tensors = [*model.parameters(), *model.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    yield
    with torch.no_grad():
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)


def from_large_to_small(budgets: Sequence[Budget]) -> list[int]:
    """Return the positions of budgets in the order in which a falling target meets them.

    Raises:
        UserError: one allows more of one resource and less of another than the next.
    """
    targets = [[bound.target for bound in budget.constraints] for budget in budgets]
    order = sorted(range(len(budgets)), key=lambda position: targets[position], reverse=True)
    for larger, smaller in pairwise(order):
        if any(less > more for less, more in zip(targets[smaller], targets[larger], strict=True)):
            raise UserError(
                "method.budgets_in_one: one search cannot pass budgets of which one allows more of one resource and "
                "less of another"
            )
    return order
