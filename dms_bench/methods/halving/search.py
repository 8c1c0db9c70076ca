"""Successive halving: Jamieson and Talwalkar 2016, with Hyperband's eta (Li et al. 2018, arXiv 1603.06560).

Every proposal is searched for, from the same weights, and cut; all are trained for a few epochs, one in eta of them
goes on for eta times as many, until one is left. What they learnt on the way is thrown away: the winner is retrained as
any other architecture is. All of it is charged to the search.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from dms_bench.config.method import MethodSpec
from dms_bench.methods.base import SearchContext
from dms_bench.methods.halving.spec import Halving
from dms_bench.methods.sampling.fitness import agreed
from dms_bench.scaling import Architecture, cut


@dataclass
class _Contestant:
    """A proposal, the weights that its search left the supernet with, and its network so far."""

    label: str
    place: str
    architecture: Architecture
    weights: dict[str, Tensor]
    network: nn.Module


class HalvingSearch:
    """Lets the proposals of other methods compete."""

    def __init__(self, spec: Halving) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the proposal that is left, its searched weights in the supernet."""
        begin = copy.deepcopy(context.model)
        contestants = [
            self._propose(context, begin, proposal, str(place)) for place, proposal in enumerate(self.spec.proposals)
        ]
        epochs, values = self.spec.epochs, {}
        while len(contestants) > 1:
            scores = [self._trained(context, begin, contestant, epochs) for contestant in contestants]
            for contestant, score in zip(contestants, scores, strict=True):
                values[f"after_{epochs}/{contestant.place} {contestant.label}"] = score
            sign = 1 if context.trial.task.higher_is_better else -1
            order = sorted(range(len(scores)), key=lambda place: -sign * scores[place])
            contestants = [contestants[place] for place in sorted(order[: max(1, len(scores) // self.spec.eta)])]
            epochs *= self.spec.eta
        (winner,) = contestants
        context.model.load_state_dict(winner.weights)
        context.loop.epoch_done(1, {**values, "proposal": float(winner.place)}, {})
        return winner.architecture

    def _propose(self, context: SearchContext, begin: nn.Module, proposal: MethodSpec, place: str) -> _Contestant:
        trial = context.trial.model_copy(update={"method": proposal})
        model = copy.deepcopy(begin)
        own = replace(context, trial=trial, model=model, loop=context.loop.within(f"{place}-search"))
        architecture = proposal.load_implementation()(proposal).search(own)
        model = model.cpu()
        network = cut(model, context.space, architecture)
        if trial.pipeline == "DMSnp":
            context.task.initialise(network)
        return _Contestant(proposal.label(), place, architecture, model.state_dict(), network)

    def _trained(self, context: SearchContext, begin: nn.Module, contestant: _Contestant, epochs: int) -> float:
        """Train a contestant for some epochs more, and return its measure on the validation split."""
        assert context.trial.search is not None  # the trial's validation saw to it
        recipe = context.trial.search.model_copy(update={"epochs": epochs})
        fit: Any = context.task.fit
        if recipe.needs_teacher():
            fit = partial(fit, teacher=copy.deepcopy(begin))
        loop = context.loop.within(f"{contestant.place}-{epochs}")
        contestant.network = fit(contestant.network, recipe, loop)

        def measured(architecture: Architecture) -> float:
            network = contestant.network.to(context.loop.device)
            return context.task.evaluate(network, "val", context.loop.device)[context.trial.task.metric]

        value = agreed(measured, context.loop.device)(contestant.architecture)
        contestant.network = contestant.network.cpu()
        return value
