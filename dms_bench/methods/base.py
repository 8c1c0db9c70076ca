"""What a search method gets and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from dms_bench.config.trial import Trial
from dms_bench.scaling import Architecture, Budget, SearchSpace
from dms_bench.tasks import Loop, Task


@dataclass(frozen=True)
class SearchContext:
    """Everything a search may use; the same for every method.

    Attributes:
        trial: the resolved specification.
        task: data, training loop and measure.
        model: the supernet (pretrained for DMSp and DMSp-), which the search may train in place.
        space: its search space.
        budget: what the architecture may cost, in absolute numbers.
        loop: the runtime's side of the search stage.
        stage: charges the time inside of it to a stage of another name, instead of to the search.
    """

    trial: Trial
    task: Task
    model: nn.Module
    space: SearchSpace
    budget: Budget
    loop: Loop
    stage: Callable[[str], AbstractContextManager[Any]] = nullcontext

    def generator(self) -> torch.Generator:
        """Return a random generator that depends on the trial's seed alone."""
        return torch.Generator().manual_seed(self.trial.seed)


#: Takes the network of a budget: its position among the budgets, what it keeps, and the whole network that is cut.
Keep = Callable[[int, Architecture, nn.Module], None]


class Method(Protocol):
    """A search method, made from its specification: `Method(spec)`."""

    def __init__(self, spec: Any) -> None: ...

    def search(self, context: SearchContext) -> Architecture:
        """Return an architecture of the space at the budget; the same on every worker."""


class InOneMethod(Protocol):
    """A search method that can find the networks for several budgets in one search."""

    def search_in_one(self, context: SearchContext, budgets: Sequence[Budget], keep: Keep) -> None:
        """Search once, and give `keep` the network of each budget; the same on every worker."""
