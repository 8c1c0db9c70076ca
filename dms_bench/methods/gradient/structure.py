"""What a gradient search adds to every training step, whatever it trains in place of masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dms_bench.methods.gradient.spec import GradientSpec
from dms_bench.scaling import Budget, Schedule, Supernet
from dms_bench.scaling.lagrangian import Lagrangian


class DmsStructure:
    """What the search adds to every training step: target, resource loss, structure update."""

    def __init__(self, supernet: Supernet, spec: GradientSpec, budget: Budget, *, trains_weights: bool) -> None:
        self.supernet, self.spec = supernet, spec
        self.device = supernet.structure_parameters()[0].device
        self.final = self.budget = budget.to(self.device)
        self.schedule = Schedule(spec.observe_share, spec.decay_share, getattr(spec, "depth_share", None))
        self.projected = spec.budget == "projected"
        self.lagrangian: Lagrangian | None = None
        if spec.budget == "lagrangian":
            self.lagrangian = Lagrangian(len(budget.constraints), self.device)
        self.trains_weights = trains_weights
        optimizers = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        self.optimizer = optimizers[spec.structure.optimizer](supernet.structure_parameters(), lr=spec.structure.lr)

    def begin_step(self, progress: float) -> None:
        """Observe, then lower the target; freeze the depth once the target has arrived."""
        self.budget = self.supernet.begin_step(progress, self.final, self.schedule, projected=self.projected)
        if self.lagrangian is not None:
            self.lagrangian.begin_step(progress)

    def loss(self) -> Tensor:
        """What brings the search to its budget, a scalar: the weighted resource loss (5), or that of multipliers.

        Zero where the structure is held at its budget, and where multipliers would rise before anything is decided.
        """
        if self.projected or (self.lagrangian is not None and self.supernet.relaxation.observing):
            return torch.zeros((), device=self.supernet.hard_mask().device)
        if self.lagrangian is not None:
            return self.lagrangian.loss(self.budget, self.supernet.soft_size(), self.supernet.relaxation.indecision())
        return self.spec.resource_weight * self.supernet.resource_loss(self.budget)

    def end_step(self) -> None:
        """Step the structure, and multipliers, take up the importance."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.lagrangian is not None:
            self.lagrangian.step()
        self.supernet.update()

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Numbers of the present state for the curves."""
        supernet = self.supernet
        space = supernet.space
        kept = supernet.proposal()[0] / torch.tensor(space.units.sizes)
        values = {"kept_ratio_mean": float(kept.mean())}
        values["structural_parameters"] = sum(parameter.numel() for parameter in supernet.structure_parameters())
        temperature = getattr(supernet.relaxation, "temperature", getattr(self.spec, "temperature", None))
        if temperature is not None:
            values["temperature"] = float(temperature)
        soft, hard = supernet.soft_size(), supernet.hard_mask()
        for bound in self.budget.constraints:
            values[f"target_{bound.name}"] = bound.target
            values[f"soft_{bound.name}"] = float(bound.cost(*soft))
            values[f"hard_{bound.name}"] = space.cost_of(bound.cost.to(torch.device("cpu")), hard)
        return values | {f"kept/{name}": float(ratio) for name, ratio in zip(space.names, kept.tolist(), strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """State of the structure's optimiser, and of multipliers; ratios and importance are in the supernet's own."""
        state = {"optimizer": self.optimizer.state_dict()}
        return state if self.lagrangian is None else state | {"lagrangian": self.lagrangian.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lagrangian is not None:
            self.lagrangian.load_state_dict(state["lagrangian"])
