"""Pretraining a supernet whose subnets share weights: the task's own training, with another subnet on every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.config.recipe import Recipe
from dms_bench.scaling import SearchSpace, Supernet
from dms_bench.scaling.structure.subnets import RandomPaths
from dms_bench.tasks import Loop, Task


def train_sharing(task: Task, model: nn.Module, space: SearchSpace, recipe: Recipe, loop: Loop, seed: int) -> nn.Module:
    """Train random subnets of `model` in place, one per step, and return it.

    Args:
        task: trains.
        model: the supernet.
        space: which subnets there are.
        recipe: as for the whole network; weight decay and momentum act on weights outside of a step's subnet too.
        loop: the runtime's side of the stage.
        seed: of the subnets drawn.
    """
    supernet = Supernet(model, space, RandomPaths(space, seed=seed))
    task.fit(supernet, recipe, loop, PathSampling(supernet))
    return model


class PathSampling:
    """What the training of random subnets adds to a step (`StructureHook`): the next draw."""

    trains_weights = True

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet

    def begin_step(self, progress: float) -> None:
        """Do nothing: the subnet is drawn already."""

    def loss(self) -> Tensor:
        """Return zero: subnets of any size are trained."""
        return torch.zeros(())

    def end_step(self) -> None:
        """Draw the next step's subnet."""
        self.supernet.update()

    def metrics(self) -> dict[str, float]:
        """Return nothing: the measure is the whole network's."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the draws are in the supernet's own state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up nothing."""
