"""What a network may cost: one or more constraints that hold together.

Shape legend:
    G: width groups
    B: removable blocks of all stages
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dms_bench.scaling.cost.model import Cost
from dms_bench.scaling.schedule import falling_target
from dms_bench.scaling.space.space import SearchSpace


@dataclass(frozen=True)
class Constraint:
    """An upper bound on one cost.

    Attributes:
        name: what is counted: `macs`, `params`, ...
        cost: of an architecture, differentiable in what it keeps.
        target: the bound, in the unit of `cost`.
        whole: cost of the whole supernet.
    """

    name: str
    cost: Cost
    target: float
    whole: float


@dataclass(frozen=True)
class Budget:
    """Constraints that an architecture has to meet together."""

    constraints: tuple[Constraint, ...]

    def usage(self, kept: Tensor, blocks: Tensor) -> Tensor:
        """Return the largest share that any constraint has of its target; 1 meets the budget exactly.

        Args:
            kept: kept elements of each group, [..., G].
            blocks: masks of the removable blocks, [B].
        """
        shares = [constraint.cost(kept, blocks) / constraint.target for constraint in self.constraints]
        return torch.stack(shares).amax(0)

    def loss(self, kept: Tensor, blocks: Tensor) -> Tensor:
        """Equation (6), summed over the constraints: log(cost / target) of each that is missed; scalar."""
        terms = [
            torch.relu(torch.log(constraint.cost(kept, blocks) / constraint.target)) for constraint in self.constraints
        ]
        return torch.stack(terms).sum()

    def falling(self, progress: float, decay_share: float, observe_share: float = 0.0) -> Budget:
        """Return the budget on its way from the whole supernet to its targets, equation (10)."""
        return Budget(
            tuple(
                replace(bound, target=falling_target(bound.whole, bound.target, progress, decay_share, observe_share))
                for bound in self.constraints
            )
        )

    def to(self, device: torch.device) -> Budget:
        """Return the budget with its costs on a device."""
        return Budget(tuple(replace(bound, cost=bound.cost.to(device)) for bound in self.constraints))


def budget_of(space: SearchSpace, **targets: float | tuple[Cost, float]) -> Budget:
    """Return a budget on MACs, parameters or both: `budget_of(space, macs=0.3, params=2e6)`.

    Any other cost is given with its target, such as a latency measured by `measure_latency`:
    `budget_of(space, macs=0.5, latency=(model, 0.6))`.

    Args:
        space: the search space.
        **targets: resource -> target, or a cost with its target; at most 1 is a share of the supernet's.

    Raises:
        ValueError: there is no target, or none above zero; the resource is neither `macs` nor `params`, and comes
            without a cost.
    """
    if not targets:
        raise ValueError("a budget needs a target: budget_of(space, macs=0.3)")
    costs: dict[str, Callable[[], tuple[Cost, int]]] = {
        "macs": lambda: (space.macs_model, space.macs),
        "params": lambda: (space.params_model, space.params),
    }
    constraints = []
    for name, target in targets.items():
        whole: float
        if isinstance(target, tuple):
            cost, target = target
            whole = space.cost_of(cost, space.full())
        elif name in costs:
            cost, whole = costs[name]()
        else:
            raise ValueError(
                f"no resource {name!r}: a budget counts {' or '.join(costs)}; any other comes with its cost, "
                f"{name}=(measure_latency(...), target)"
            )
        if isinstance(target, bool) or not isinstance(target, int | float) or not 0 < target < math.inf:
            raise ValueError(f"{name}: {target!r} is no target; a share such as 0.3, or a number above 1")
        constraints.append(Constraint(name, cost, target * whole if target <= 1 else target, float(whole)))
    return Budget(tuple(constraints))
