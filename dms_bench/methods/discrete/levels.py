"""Evolution of sizes at a constant budget: units exchange levels.

From the even architecture on, every generation makes children of one parent and selects among them in rounds: the
first looks at many children on few batches, the last at few children, and at the parent, on many. A child takes the
parent's place where it is better there, so that the best fitness never gets worse. Batches are always the same ones,
those of a round among those of the next.

Sources: Sieberling et al. 2025 (EvoPress: level shifts, rounds of selection, divergence as fitness), Li et al. 2025
(Tyr-the-Pruner), Tang et al. 2025 (DarwinLM). DarwinLM trains children a little before it selects; here none are
trained, as a task's training is a whole stage with a recipe, checkpoints and metrics.
"""

from __future__ import annotations

import torch

from dms_bench.methods.base import SearchContext
from dms_bench.methods.discrete.judge import Judge
from dms_bench.methods.discrete.mutation import Mutation
from dms_bench.methods.discrete.scores import taylor_scores
from dms_bench.methods.discrete.spec import Levels
from dms_bench.scaling import Architecture


class LevelsSearch:
    """Searches sizes; of each unit the elements of the highest Taylor scores of the whole network stay."""

    def __init__(self, spec: Levels) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the last generation's parent."""
        spec, space, generator = self.spec, context.space, context.generator()
        judge = Judge(context, spec.fitness, spec.images)
        mutation = Mutation(context, taylor_scores(context, spec.batches[-1]), spec.levels)
        parent = mutation.fitted(torch.tensor(space.units.sizes, dtype=torch.float32))
        best = judge(parent, spec.batches[-1])
        for _ in range(spec.generations):
            living = mutation.children(parent, spec.offspring, generator)
            for survivors, batches in zip((*spec.survivors, 1), spec.batches, strict=True):
                fitness = [judge(child, batches) for child in living]
                order = sorted(range(len(living)), key=fitness.__getitem__)[:survivors]
                living, fitness = [living[place] for place in order], [fitness[place] for place in order]
            if living and fitness[0] < best:
                parent, best = living[0], fitness[0]
        return space.architecture(parent)
