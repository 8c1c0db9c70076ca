"""Random search and evolution: one sampler of architectures at the budget, scored without training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dms_bench.methods import proxies
from dms_bench.methods.base import SearchContext
from dms_bench.methods.specs.sampling import Evolution, Sampling
from dms_bench.scaling import Architecture, cut
from dms_bench.scaling.fit import fit_to_budget

#: Batches that ZiCo compares; the other scores take the first.
_BATCHES = 2


class SamplingSearch:
    """Scores architectures at the budget and returns the best one ever seen.

    A candidate is cut from the supernet and gets fresh weights from the trial's seed, so that scores differ by the
    architecture alone. Evolution follows the steady state of the Zen and ZiCo searches, on the space of all
    other methods: a child of two of the better half (each gene from either, then mutated) takes the
    place of the worst.
    """

    def __init__(self, spec: Sampling) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the architecture with the highest score."""
        generator = context.generator()
        genes = [self._random(context, generator) for _ in range(self._first)]
        living = [(self._score(context, one), one) for one in genes]
        best_score, best = max(living, key=lambda member: member[0])
        for _ in range(self.spec.candidates - self._first):
            child = self._child(context, [one for _, one in sorted(living, key=lambda m: -m[0])], generator)
            score = self._score(context, child)
            living = [*sorted(living, key=lambda member: member[0])[1:], (score, child)]
            if score > best_score:
                best_score, best = score, child
        return self._architecture(context, best)

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
        one, other = (ranked[parent] for parent in parents)
        child = torch.where(torch.rand(len(one), generator=generator) < 0.5, one, other)
        mutates = torch.rand(len(one), generator=generator) < self.spec.mutation
        return torch.where(mutates, self._random(context, generator), child)

    def _architecture(self, context: SearchContext, shares: Tensor) -> Architecture:
        """Return the architecture at the budget with these proportions; the first elements of each unit stay."""
        space = context.space
        maximum, minimum = torch.tensor(space.units.maximum), torch.tensor(space.units.minimum)
        counts = minimum + shares * (maximum - minimum)
        order = -torch.arange(space.units.total, dtype=torch.float32)
        return space.architecture(fit_to_budget(space, counts, order, context.budget))

    def _score(self, context: SearchContext, shares: Tensor) -> float:
        network = cut(context.model, context.space, self._architecture(context, shares))
        context.task.initialise(network)
        value = self._proxy(context, network.to(context.loop.device))
        context.loop.tick()
        return value

    def _proxy(self, context: SearchContext, network: nn.Module) -> float:
        task, device, name = context.task, context.loop.device, self.spec.score
        if name == "params":
            return proxies.parameters(network)
        if name == "synflow":
            return proxies.synflow(network, task.example_input(1).to(device))
        if name == "zen":
            return proxies.zen(network, task.example_input(1).to(device), context.generator())
        score = {
            "grad_norm": proxies.grad_norm,
            "snip": proxies.snip,
            "naswot": proxies.naswot,
            "zico": proxies.zico,
        }[name]
        return score(network, lambda model: task.losses(model, _BATCHES, device))
