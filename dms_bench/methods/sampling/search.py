"""Random search and evolution: one sampler of architectures at the budget, judged by one of `SCORES`."""

from __future__ import annotations

import torch
from torch import Tensor

from dms_bench.methods.base import SearchContext
from dms_bench.methods.sampling.fitness import SCORES
from dms_bench.methods.sampling.spec import Evolution, SamplerSpec
from dms_bench.scaling import Architecture, weight_norms
from dms_bench.scaling.fit import fit_to_budget


class SamplingSearch:
    """Scores architectures at the budget and returns the best one ever seen.

    Evolution follows the steady state of the Zen and ZiCo searches, on the space of all other methods: a child of
    two of the better half (each gene from either, then mutated) takes the place of the worst.
    """

    def __init__(self, spec: SamplerSpec) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the architecture with the highest score."""
        score, order = SCORES[self.spec.score](context, self.spec), importance(context)

        def judged(genes: Tensor) -> tuple[float, Tensor]:
            value = score(fitted(context, genes, order))
            context.loop.tick()
            return value, genes

        generator = context.generator()
        genes = [self._random(context, generator) for _ in range(self._first)]
        living = [judged(subnet) for subnet in genes]
        best = max(living, key=lambda member: member[0])
        for _ in range(self.spec.candidates - self._first):
            ranked = sorted(living, key=lambda member: -member[0])
            child = judged(self._child(context, [subnet for _, subnet in ranked], generator))
            living = [*ranked[:-1], child]
            best = max(best, child, key=lambda member: member[0])
        return fitted(context, best[1], order)

    @property
    def _first(self) -> int:
        """How many candidates are random."""
        spec = self.spec
        return min(spec.population, spec.candidates) if isinstance(spec, Evolution) else spec.candidates

    def _random(self, context: SearchContext, generator: torch.Generator) -> Tensor:
        """Draw the share that each unit keeps, [U]."""
        return torch.rand(len(context.space.units.sizes), generator=generator)

    def _child(self, context: SearchContext, ranked: list[Tensor], generator: torch.Generator) -> Tensor:
        assert isinstance(self.spec, Evolution)
        parents = torch.randint(max(1, len(ranked) // 2), (2,), generator=generator).tolist()
        first, second = (ranked[parent] for parent in parents)
        child = torch.where(torch.rand(len(first), generator=generator) < 0.5, first, second)
        mutates = torch.rand(len(first), generator=generator) < self.spec.mutation
        return torch.where(mutates, self._random(context, generator), child)


def fitted(context: SearchContext, genes: Tensor, order: Tensor) -> Architecture:
    """Return the architecture at the budget with these shares of each unit [U]; `order` says what of it stays [E]."""
    space = context.space
    maximum, minimum = torch.tensor(space.units.maximum), torch.tensor(space.units.minimum)
    counts = minimum + genes * (maximum - minimum)
    return space.architecture(fit_to_budget(space, counts, order, context.budget))


def importance(context: SearchContext) -> Tensor:
    """Return what stays of each unit, [E]: the largest of inherited weights, else the first elements.

    Subnets of a weight-sharing supernet are trained as the first elements; with fresh weights it does not matter.
    """
    trial, space = context.trial, context.space
    if trial.pipeline == "DMSnp" or trial.supernet.weight_sharing:
        return -torch.arange(space.units.total, dtype=torch.float32)
    return weight_norms(context.model, space)
