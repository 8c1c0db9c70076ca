"""LLM-Pruner's Taylor pruning (Ma et al. 2023): coupled weights are scored together, inner blocks lose one ratio.

An element's score is the sum over all weights that belong to it (of a head: its rows of q, k and v, its columns of the
projection behind them):

    param_first   sum |w g|        vectorize   |sum w g|
    param_second  sum |w^2 F|      param_mix   sum |w g - w^2 F / 2|

with g the gradient of the loss on calibration data and F the mean square of the batches' gradients (the authors' of
single samples). Hidden width, embeddings and norms stay whole, as do the blocks at both ends.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dms_bench.methods.base import SearchContext
from dms_bench.methods.language.spec import LlmPruner
from dms_bench.scaling import Architecture, SearchSpace
from dms_bench.scaling.fit import fit_to_budget
from dms_bench.scaling.modules.modes import modes_kept

#: Scaled by any factor that is tried, this many elements are still all there are.
_ALL = 1e9


class LlmPrunerSearch:
    """One ratio for the groups of inner blocks, the elements of highest Taylor score."""

    def __init__(self, spec: LlmPruner) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the architecture at the budget."""
        space = context.space
        counts = self.counts(space)
        scores = self._scores(context)
        return space.architecture(fit_to_budget(space, counts, scores, context.budget))

    def counts(self, space: SearchSpace) -> Tensor:
        """Return proposed sizes of all units in proportion, [U]: whole for what is left alone.

        Raises:
            UserError: no group lies in a numbered block between those at the ends.
        """
        inner = self.spec.inner_groups(space)
        sizes = [group.size if group.name in inner else _ALL for group in space.groups]
        return torch.tensor([float(size) for size in [*sizes, *(stage.size for stage in space.stages)]])

    def _scores(self, context: SearchContext) -> Tensor:
        space, model, device = context.space, context.model.to(context.loop.device), context.loop.device
        weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        first = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        second = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        with modes_kept(model):
            model.eval()
            batches = 0
            for loss in context.task.losses(model, self.spec.batches, device):
                gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
                for name, gradient in zip(weights, gradients, strict=True):
                    if gradient is not None:
                        first[name] += gradient
                        second[name] += gradient.square()
                batches += 1
                context.loop.tick()
        scores = torch.zeros(space.units.total + 1, dtype=torch.double)
        for (name, dim), elements in space.occurrences():
            if name in weights:
                w, g, f = weights[name].detach(), first[name] / batches, second[name] / batches
                weighed = self._weighed(w.double(), g.double(), f.double()).cpu()
                other_dims = [axis for axis in range(weighed.dim()) if axis != dim]
                summed = weighed.sum(other_dims) if other_dims else weighed
                scores.index_add_(0, torch.where(elements >= 0, elements, space.units.total), summed)
        result = scores[:-1].abs()
        result[space.width_elements :] = 1.0
        return result.float()

    def _weighed(self, w: Tensor, g: Tensor, f: Tensor) -> Tensor:
        if self.spec.importance == "vectorize":
            return w * g
        if self.spec.importance == "param_first":
            return (w * g).abs()
        if self.spec.importance == "param_second":
            return (w.square() * f).abs()
        return (w * g - w.square() * f / 2).abs()
