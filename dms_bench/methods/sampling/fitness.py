"""Scores of an architecture, by name: how random search and evolution judge a candidate; higher is better.

Counts, training-free scores of the network with fresh weights (`proxies`), and two that need a trained
supernet: the measure with shared weights, and a predictor of it (`predictor`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from dms_bench.methods.agreement import of_leader
from dms_bench.methods.base import SearchContext
from dms_bench.methods.sampling import proxies
from dms_bench.methods.sampling.spec import SamplerSpec
from dms_bench.scaling import Architecture, cut

#: Scores an architecture of the context's space.
Scorer = Callable[[Architecture], float]
#: Makes a scorer for one search.
Factory = Callable[[SearchContext, SamplerSpec], Scorer]

#: Batches that ZiCo compares; the other scores take the first.
_BATCHES = 2


def shared(context: SearchContext, spec: SamplerSpec) -> Scorer:
    """Return the task's measure of the network cut out with the supernet's weights, nothing trained.

    Batch-norm statistics are estimated anew on training images. The whole validation split is measured, on which
    the supernet was not trained; the test split is not touched.
    """
    task, device, measured = context.task, context.loop.device, context.trial.task
    sign = 1 if measured.higher_is_better else -1

    def score(architecture: Architecture) -> float:
        network = cut(context.model, context.space, architecture).to(device)
        task.recalibrate(network, device, spec.images)
        return sign * task.evaluate(network, "val", device)[measured.metric]

    return agreed(score, device)


def agreed(scorer: Scorer, device: torch.device) -> Scorer:
    """Return a scorer that gives every worker the leading one's number: the others' may differ in the last bit."""

    def score(architecture: Architecture) -> float:
        return float(of_leader(torch.tensor(scorer(architecture), dtype=torch.double), device))

    return score


def _fresh(proxy: Callable[[SearchContext, nn.Module], float]) -> Factory:
    """Score the network with weights drawn from the trial's seed, so that scores differ by the architecture alone."""

    def factory(context: SearchContext, spec: SamplerSpec) -> Scorer:
        def score(architecture: Architecture) -> float:
            network = cut(context.model, context.space, architecture)
            context.task.initialise(network)
            return proxy(context, network.to(context.loop.device))

        return agreed(score, context.loop.device)

    return factory


def _by_losses(proxy: Callable[[nn.Module, proxies.Losses], float]) -> Factory:
    """Score by losses on training batches."""
    return _fresh(
        lambda context, network: proxy(network, lambda model: context.task.losses(model, _BATCHES, context.loop.device))
    )


def _synflow(context: SearchContext, network: nn.Module) -> float:
    return proxies.synflow(network, _numbers(context))


def _zen(context: SearchContext, network: nn.Module) -> float:
    return proxies.zen(network, _numbers(context), context.generator())


def _numbers(context: SearchContext) -> torch.Tensor:
    """Return an input for scores that feed a network with numbers of their own."""
    return context.task.example_input(1).to(context.loop.device)


def _predictor(context: SearchContext, spec: SamplerSpec) -> Scorer:
    from dms_bench.methods.sampling.predictor import (
        predictor,  # scikit-learn takes seconds that the other scores need not pay
    )

    return agreed(predictor(context, spec.samples, shared(context, spec)), context.loop.device)


#: What `score` in a suite names.
SCORES: dict[str, Factory] = {
    "params": lambda context, spec: lambda architecture: float(architecture.params),
    "macs": lambda context, spec: lambda architecture: float(architecture.macs),
    "grad_norm": _by_losses(proxies.grad_norm),
    "snip": _by_losses(proxies.snip),
    "naswot": _by_losses(proxies.naswot),
    "zico": _by_losses(proxies.zico),
    "synflow": _fresh(_synflow),
    "zen": _fresh(_zen),
    "shared": shared,
    "predictor": _predictor,
}
