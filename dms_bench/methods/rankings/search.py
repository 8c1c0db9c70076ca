"""Pruning by ranking: score all channels once, keep the best ones that the budget allows.

Only widths are cut (blocks go where widths alone cannot meet the budget), and nothing is trained. Settings are the
published ones; sources: Li et al. 2017 (L1), Molchanov et al. 2019 (Taylor), Fang et al. 2023 (DepGraph), Fang
et al. 2024 (isomorphic pruning), as in torch-pruning.

Shape legend:
    U: searched units
    E: elements of all units
    W: elements of the width groups
    G: width groups
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dms_bench.methods.base import SearchContext
from dms_bench.methods.calibration import with_gradients
from dms_bench.methods.rankings.scores import magnitude, maker_scores, shared_scores, taylor, topologies
from dms_bench.methods.rankings.spec import GroupNorm, Isomorphic, ScopedRanking
from dms_bench.scaling import Architecture, Budget, SearchSpace
from dms_bench.scaling.fit import fit_to_budget
from dms_bench.scaling.structure.topk import ascending_positions

#: Training batches whose gradients are accumulated for a Taylor score.
BATCHES = 50
#: One threshold for all layers may take this share of one at most, or it empties some; more only where the budget
#: cannot be met otherwise.
_LARGEST_CUT = 0.8


class RankingSearch(ABC):
    """What all rankings share: from scores to an architecture at the budget."""

    def __init__(self, spec: ScopedRanking | GroupNorm | Isomorphic) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the architecture of the highest scores at the budget."""
        space = context.space
        scores = self.scores(context)
        rivals = self.rivals(context)
        counts = torch.tensor(space.units.sizes, dtype=torch.float32)
        if rivals is not None:
            counts[: len(space.groups)] = threshold_counts(space, scores, rivals, context.budget)
        return space.architecture(fit_to_budget(space, counts, scores, context.budget))

    @abstractmethod
    def scores(self, context: SearchContext) -> Tensor:
        """Return the score of every element, [E]."""

    def rivals(self, context: SearchContext) -> Tensor | None:
        """Number the sets of groups that one threshold cuts, [G]; None where each keeps the same share."""
        if isinstance(self.spec, ScopedRanking) and self.spec.scope == "local":
            return None
        return torch.zeros(len(context.space.groups), dtype=torch.long)


class MagnitudeSearch(RankingSearch):
    """L1 and L2: the norm of the filter that makes a channel."""

    def scores(self, context: SearchContext) -> Tensor:
        """Return |w| or w^2 summed over each filter, [E]; the root of the latter would change no order."""
        p = {"l1": 1, "l2": 2}[self.spec.kind]
        return maker_scores(context.model, context.space, magnitude(p))


class GroupNormSearch(RankingSearch):
    """DepGraph's group norm: over all layers that share a channel, relative to the group's mean."""

    def scores(self, context: SearchContext) -> Tensor:
        """Return w^2 summed over all that belongs to each element, [E]."""
        return shared_scores(context.model, context.space, magnitude(2), (_BatchNorm, nn.LayerNorm))


class TaylorSearch(RankingSearch):
    """First-order change of the loss over all layers that share a channel, relative to the group's mean."""

    def scores(self, context: SearchContext) -> Tensor:
        """Return |w dL/dw| summed over all that belongs to each element, [E].

        The scales of batch norms are left out, as torch-pruning does.
        """
        with with_gradients(context, BATCHES) as model:
            return shared_scores(model, context.space, taylor, (nn.LayerNorm,))


class IsomorphicSearch(TaylorSearch):
    """Taylor, with a threshold for each topology instead of one for all."""

    def rivals(self, context: SearchContext) -> Tensor:
        """Number the topologies of the groups, [G]."""
        return topologies(context.model, context.space)


def threshold_counts(space: SearchSpace, scores: Tensor, rivals: Tensor, budget: Budget) -> Tensor:
    """Return the widths, [G], of the lowest threshold that meets the budget with all blocks.

    Args:
        space: the search space.
        scores: of every element, [E].
        rivals: number of the set of groups in which each group competes, [G].
        budget: what is to be met.
    """
    blocks = torch.ones(space.units.total - space.width_elements)
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if float(budget.usage(above_threshold(space, scores, rivals, middle), blocks)) > 1:
            low = middle
        else:
            high = middle
    return above_threshold(space, scores, rivals, high)


def above_threshold(space: SearchSpace, scores: Tensor, rivals: Tensor, ratio: float) -> Tensor:
    """Return how many elements of each group, [G], are not among the lowest `ratio` of their rivals."""
    width, units, groups = space.width_elements, space.units, len(space.groups)
    owner = space.units.owner[:width]
    rival = rivals[owner]  # [W]
    rank = ascending_positions(scores[:width], rival, _starts(torch.bincount(rival).tolist()))
    members = torch.bincount(rival)
    removed = members - (members * (1 - ratio)).long()  # as torch-pruning rounds it
    kept = space.kept_elements(rank >= removed[rival])[:groups]
    sizes, fewest, most = (torch.tensor(of[:groups]) for of in (units.sizes, units.minimum, units.maximum))
    return kept.maximum(((1 - _LARGEST_CUT) * sizes).round()).maximum(fewest).minimum(most)


def _starts(sizes: Sequence[int]) -> Tensor:
    return torch.tensor([0, *sizes]).cumsum(0)[:-1]
