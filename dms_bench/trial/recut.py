"""An architecture that meets a latency as it is measured in a runtime: cut, timed, and cut again where it is off.

A model of the latency knows no vector widths, no fused layers and no cache, so that the network that it takes to be at
the target is off by some per cent, always to the same side for networks that are alike. What one measurement has found
corrects the model by a factor, and the same ratios are cut to the budget anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dms_bench.config.trial import Trial
from dms_bench.inference.opened import LONG
from dms_bench.scaling import Architecture, Budget, Constraint, SearchSpace, cut, weight_norms
from dms_bench.scaling.fit import fit_to_budget
from dms_bench.tasks import Task
from dms_bench.trial.beside import Beside
from dms_bench.trial.budget import TOLERANCE
from dms_bench.trial.group import WorkerGroup
from dms_bench.trial.spaces import untrained

#: A network measured this close to its target, relatively, is not cut again; and how often it is at most.
CLOSE, MOST = 0.03, 4


@dataclass(frozen=True)
class _Cut:
    """A network that was timed: its milliseconds by the model, and the clock's as a multiple of the target."""

    architecture: Architecture
    predicted: float
    load: float


def recut(
    architecture: Architecture,
    space: SearchSpace,
    budget: Budget,
    order: Tensor,
    share: Callable[[Architecture], float],
) -> Architecture:
    """Return the architecture that is measured closest to the latency of a budget, among the one found and others.

    Args:
        architecture: what a search has found.
        space: its search space.
        budget: with a constraint named `latency`.
        order: which elements come first where more of a unit are kept, [E].
        share: measures an architecture's latency, as a share of the supernet's.
    """
    (latency,) = (bound for bound in budget.constraints if bound.name == "latency")
    others = [bound for bound in budget.constraints if bound is not latency]
    mask = space.mask(architecture)
    counts = space.kept_elements(mask)
    ranks = torch.empty(len(order)).scatter_(0, order.argsort(), torch.arange(len(order), dtype=torch.float32))
    importance = ranks + len(order) * mask  # what was found is kept first
    tried: list[_Cut] = []
    while True:
        load = share(architecture) * latency.whole / latency.target
        tried.append(_Cut(architecture, space.cost_of(latency.cost, space.mask(architecture)), load))
        idle = load < 1 and _binds(others, space, architecture)
        if idle or abs(load - 1) <= CLOSE or len(tried) > MOST:
            break
        corrected = Budget((*others, replace(latency, target=_next(tried))))
        architecture = space.architecture(fit_to_budget(space, counts, importance, corrected))
        if any(architecture == earlier.architecture for earlier in tried):
            break
    return min(tried, key=_distance).architecture


def _distance(cut: _Cut) -> float:
    return abs(math.log(cut.load))


def _next(tried: list[_Cut]) -> float:
    """Return what to ask of the model: corrected by the nearest network's factor, or between the nearest two's.

    Between networks below and above the target, as a clock that jumps from one width to the next would otherwise send
    the corrections to and fro.
    """
    below, above = ([cut for cut in tried if (cut.load < 1) is side] for side in (True, False))
    if not below or not above:
        nearest = min(tried, key=_distance)
        return nearest.predicted / nearest.load
    low, high = min(below, key=_distance), min(above, key=_distance)
    between = -math.log(low.load) / math.log(high.load / low.load)
    return float(low.predicted * (high.predicted / low.predicted) ** between)


def _binds(bounds: list[Constraint], space: SearchSpace, architecture: Architecture) -> bool:
    """Tell whether one of other constraints is what keeps an architecture from being larger."""
    mask = space.mask(architecture)
    return any(space.cost_of(bound.cost, mask) > (1 - TOLERANCE) * bound.target for bound in bounds)


def recut_in(
    runtime: str, trial: Trial, task: Task, model: nn.Module, space: SearchSpace, budget: Budget, group: WorkerGroup
) -> Callable[[Architecture], Architecture]:
    """Return a function that calls `recut` on what was found, the same in every worker: the leading one measures.

    Args:
        runtime: where the latency counts.
        trial: what is searched, and how.
        task: its task.
        model: the supernet as the search has left it.
        space: its search space.
        budget: what is to be met.
        group: every worker calls the function.
    """
    whole: list[Beside] = []

    def share(architecture: Architecture) -> float:
        told = ""
        if group.leads:
            if not whole:
                whole.append(Beside(task, trial.supernet, runtime))
            own, reference = whole[0].times(cut(task.build(untrained(trial.supernet)), space, architecture), LONG)
            told = repr(own / reference)
        return float(group.gathered(told)[0])

    # The first elements of a weight-sharing supernet are what its subnets were trained as.
    by_place = trial.pipeline == "DMSnp" or trial.supernet.weight_sharing
    order = -torch.arange(space.units.total, dtype=torch.float32) if by_place else weight_norms(model, space)
    return lambda architecture: recut(architecture, space, budget, order, share)
