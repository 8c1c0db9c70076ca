"""Pruning by weights and the activations that they are applied to: Wanda-sp and FLAP.

Both score the inputs j of the layers that sum over an element (of a transformer: the projection behind the heads, and
the one back from the hidden width), from a few batches of training data; no gradient is needed.

Sources: Sun et al. 2024 (Wanda), An et al. 2024 (FLAP, and Wanda-sp as its structured form). Departures: where several
layers read an element (a residual stream) their scores are added; FLAP's biases that stand in for what was removed are
no part of the method: they are there for all methods (`repair: bias`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dms_bench.errors import UserError
from dms_bench.methods.base import SearchContext
from dms_bench.methods.calibration import input_moments, per_element, plain_sites, weight_of
from dms_bench.methods.language.spec import CalibratedSpec
from dms_bench.methods.rankings.search import threshold_counts
from dms_bench.scaling import Architecture, SearchSpace
from dms_bench.scaling.fit import fit_to_budget


class WandaSpSearch:
    """Score: mean over outputs i of |W_ij|, times the norm of x_j; one ratio for every group."""

    def __init__(self, spec: CalibratedSpec) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the architecture with equal shares of every group, the elements of highest score."""
        space, sites = context.space, plain_sites(context.model, context.space)
        moments = input_moments(context, sites, self.spec.batches)
        scores = torch.zeros(space.units.total, dtype=torch.double)
        for site in sites:
            norms = moments[site.module].square.sqrt()
            scores += per_element(space, site, weight_of(context.model, site).abs().mean(0) * norms)
        _check(space, scores)
        counts = torch.tensor(space.units.sizes, dtype=torch.float32)
        return space.architecture(fit_to_budget(space, counts, scores.float(), context.budget))


class FlapSearch:
    """Score: variance of x_j times the sum of W_ij squared, standardised in each group; one threshold for all.

    As in the authors' code, scores are squared before they are averaged over a head. No group loses more than four
    fifths of its elements where the budget can be met otherwise.
    """

    def __init__(self, spec: CalibratedSpec) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the architecture whose elements score above one threshold."""
        space, sites = context.space, plain_sites(context.model, context.space)
        moments = input_moments(context, sites, self.spec.batches)
        of_heads = torch.tensor([group.heads for group in space.groups] + [False] * len(space.stages))
        heads = of_heads[space.units.owner]
        sums, times = torch.zeros(2, space.units.total, dtype=torch.double)
        for site in sites:
            raw = moments[site.module].variance * weight_of(context.model, site).square().sum(0)
            plain, squared = (per_element(space, site, values) for values in (raw, raw.square()))
            sums += torch.where(heads, squared, plain)
            times += per_element(space, site, torch.ones_like(raw))
        _check(space, times)
        scores = _standardised(space, sums / times.clamp_min(1))
        everyone = torch.zeros(len(space.groups), dtype=torch.long)
        counts = torch.tensor(space.units.sizes, dtype=torch.float32)
        counts[: len(space.groups)] = threshold_counts(space, scores.float(), everyone, context.budget)
        return space.architecture(fit_to_budget(space, counts, scores.float(), context.budget))


def _standardised(space: SearchSpace, scores: Tensor) -> Tensor:
    """Take each group's mean out and divide by its deviation."""
    parts = [
        (part - part.mean()) / part.std().clamp_min(1e-30) if index < len(space.groups) else torch.zeros_like(part)
        for index, part in enumerate(scores.split(list(space.units.sizes)))  # type: ignore[no-untyped-call]
    ]
    return torch.cat(parts)


def _check(space: SearchSpace, times: Tensor) -> None:
    for group, start in zip(space.groups, space.units.starts, strict=False):
        if not bool(times[start : start + group.size].any()):
            raise UserError(f"no plain layer reads group {group.name!r}, so that its activations cannot be weighed")
