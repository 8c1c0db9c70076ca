"""The architecture of least additive loss at the budget, by integer programs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dms_bench.methods.agreement import of_leader
from dms_bench.methods.base import SearchContext
from dms_bench.methods.discrete.choices import Choices
from dms_bench.methods.discrete.judge import Judge
from dms_bench.methods.discrete.program import Program
from dms_bench.methods.discrete.scores import taylor_scores
from dms_bench.methods.discrete.spec import Mip
from dms_bench.methods.discrete.units import WidthUnit, width_units
from dms_bench.scaling import Architecture, SearchSpace
from dms_bench.scaling.fit import fit_to_budget, nearest


class MipSearch:
    """Scores every level of every unit once, solves, and lets all widths give way alike to meet the budget exactly.

    Of each unit the elements of the highest Taylor scores stay, whatever levels are scored by.
    """

    def __init__(self, spec: Mip) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the architecture of the best choice at the budget."""
        space, budget = context.space, context.budget
        scores = taylor_scores(context, self.spec.batches)
        units = width_units(space, self.spec.levels)
        if self.spec.score == "kl":
            lost = self._measured(context, units, scores)
        else:
            lost = [loss for unit in units for loss in unit.lost(space, scores)]
            lost += scores[space.width_elements :].tolist()
        program = Program(Choices(space, units), np.array(lost), budget)
        most, fewest = (torch.tensor(of, dtype=torch.float32) for of in (space.units.sizes, space.units.minimum))
        starts = (fit_to_budget(space, most, scores, budget), nearest(space, fewest, scores))
        solution = program.solve(*(program.choices.below(mask) for mask in starts))
        choice = of_leader(torch.from_numpy(solution), context.loop.device)
        kept, blocks = program.choices.size(choice.numpy())
        # Blocks that were chosen matter more than any other, should the widths alone not do.
        scores[space.width_elements :] += blocks * (1 + scores.max())
        depths = [stays.sum() for stays in torch.split(blocks, [stage.size for stage in space.stages])]
        counts = torch.tensor([*kept, *depths], dtype=torch.float32)
        return space.architecture(fit_to_budget(space, counts, scores, budget))

    def _measured(self, context: SearchContext, units: list[WidthUnit], scores: Tensor) -> list[float]:
        """Return the divergence with each level, and without each block, alone, [V]; none of what is whole."""
        space, judge = context.space, Judge(context, "kl", self.spec.images)
        masks = [_at_level(space, unit, count, scores) for unit in units for count in unit.counts]
        for block in range(space.width_elements, space.units.total):
            masks.append(space.full())
            masks[-1][block] = 0
        return [0.0 if bool(mask.all()) else judge(mask, self.spec.batches) for mask in masks]


def _at_level(space: SearchSpace, unit: WidthUnit, count: int, scores: Tensor) -> Tensor:
    """Return the mask, [E], of the supernet with one unit at a level."""
    mask = space.full()
    for group in unit.groups:
        start, size = space.units.starts[group], space.units.sizes[group]
        mask[start + scores[start : start + size].argsort(stable=True)[: size - count]] = 0
    return mask
