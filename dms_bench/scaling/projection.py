"""A structure that is held at its budget: projection instead of a resource loss.

Each step of a search shifts all units by one scalar s, along the direction d in which every unit shrinks alike, so that
what the search pays for, C, meets its target: C(p + s d) = t for the structure's parameter p. By the implicit function
ds/dp = -c / <c, d> with c = dC/dp, so that a gradient g with respect to the shifted parameter is, with respect to p,

    g - c <g, d> / <c, d>.

It moves along the budget: a unit grows where it helps more than others do for what it costs. No weight of a resource
loss is left. The shift is taken up in the parameter itself, so that the next step begins where this one ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from dms_bench.scaling.budget import Budget
from dms_bench.scaling.structure.relaxation import Relaxation

#: What a cost may be off its target, as a share of that.
PRECISION = 1e-5
#: Most evaluations of the cost in a step; where it jumps, no number of them would do.
EVALUATIONS = 40
#: Share of the reach that is tried first, as a step changes little; and by what it grows where that is not enough.
FIRST, WIDER = 1e-2, 6.0
#: A cost this far from its target has met a jump: a block that is there or not.
MISSED = 1e-3


class Projection:
    """Shifts a relaxation to its target, and turns its gradients along what costs the same.

    Args:
        relaxation: whose one parameter is projected.
        size: what costs are computed from, differentiable: kept elements per group and masks of the blocks.
    """

    def __init__(self, relaxation: Relaxation, size: Callable[[], tuple[Tensor, Tensor]]) -> None:
        self.relaxation, self.size = relaxation, size
        (self.parameter,) = relaxation.parameters()

    @torch.no_grad()
    def from_largest(self, budget: Budget) -> Budget:
        """Return the budget as it falls from the most that the relaxation pays for: soft masks never come to 1."""
        start = self.parameter.detach().clone()
        self._shift(start, self.relaxation.shrinking(), -self.relaxation.reach)
        size = self.size()
        self.parameter.copy_(start)
        return Budget(tuple(replace(bound, whole=float(bound.cost(*size))) for bound in budget.constraints))

    def meet(self, budget: Budget) -> RemovableHandle:
        """Shift the parameter so that what it pays for is the budget, or as near as its bounds allow.

        Returns:
            Of the hook by which gradients of the parameter run along the budget until it is removed.
        """
        direction = self.relaxation.shrinking()
        widths = self.relaxation.shrinking(depth=False)
        missed = self._project(budget, direction)
        # Binary masks of blocks jump, over the target: then the widths shrink to it.
        if abs(missed) > MISSED and not torch.equal(widths, direction):
            self._project(budget, widths)
        with torch.enable_grad():
            (cost,) = torch.autograd.grad(budget.usage(*self.size()), self.parameter)
        handle: RemovableHandle = self.parameter.register_hook(  # type: ignore[no-untyped-call]
            partial(tangent, cost=cost, direction=direction)
        )
        return handle

    @torch.no_grad()
    def _project(self, budget: Budget, direction: Tensor) -> float:
        """Shift to the budget along a direction, and return by which share of it that is missed."""
        start, reach = self.parameter.detach().clone(), self.relaxation.reach

        def excess(by: float) -> float:
            self._shift(start, direction, by)
            return float(budget.usage(*self.size())) - 1

        near, far = (0.0, excess(0.0)), (0.0, 0.0)
        if abs(near[1]) <= PRECISION:
            return near[1]
        by = math.copysign(FIRST * reach, near[1])
        while (far := (by, excess(by)))[1] * near[1] > 0:
            if abs(by) == reach:  # as near as its bounds allow
                return far[1]
            by = math.copysign(min(abs(by) * WIDER, reach), by)
        return _root(excess, near, far)

    def _shift(self, start: Tensor, direction: Tensor, by: float) -> None:
        self.parameter.copy_(self.relaxation.bounded(start + by * direction))


def tangent(gradient: Tensor, *, cost: Tensor, direction: Tensor) -> Tensor:
    """Return a gradient with respect to a parameter, from that with respect to the shifted one.

    Args:
        gradient: with respect to the shifted parameter.
        cost: gradient of the cost with respect to the parameter, like it.
        direction: in which the parameter is shifted, like it.
    """
    slope = (cost * direction).sum()
    return torch.where(slope == 0, gradient, gradient - cost * ((gradient * direction).sum() / slope))


def _root(function: Callable[[float], float], left: tuple[float, float], right: tuple[float, float]) -> float:
    """Move to where a function is zero between two points of other signs, and return its value there.

    By the Illinois method: a secant whose end that stays halves its value. Where the function jumps over zero, things
    are left above it. Written out, as this package needs nothing but torch.

    Args:
        function: its last evaluation decides where things are left.
        left: a point and the function's value there.
        right: another one.
    """
    for _ in range(EVALUATIONS):
        point = (left[0] * right[1] - right[0] * left[1]) / (right[1] - left[1])
        value = function(point)
        if abs(value) <= PRECISION:
            return value
        if point in (left[0], right[0]):
            break
        left = right if value * right[1] < 0 else (left[0], left[1] / 2)
        right = point, value
    return function(left[0] if left[1] > 0 else right[0])
