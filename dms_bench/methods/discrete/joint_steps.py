"""Greedy steps from the whole network to the budget, each in the widths or in the depth, whichever loses less.

Every step ends at a cost. The narrower candidate gets there with all widths scaled by one ratio; the shallower one
loses another block, the one without which the present network is best, and its widths make up for the rest of the
cost, up or down. So both cost the same, whatever a block is worth.

Source: Lopes Yamamoto et al. 2026 (MoP). There a step is worth a layer, the third from the end goes, and networks are
finetuned in between; which candidate is taken is decided at random, by similarity, divergence or perplexity. Here
nothing is trained, blocks are chosen as by SLEB (Song et al. 2024), and the task's loss or a divergence decides.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dms_bench.methods.base import SearchContext
from dms_bench.methods.discrete.judge import Judge
from dms_bench.methods.discrete.scores import taylor_scores
from dms_bench.methods.discrete.spec import JointSteps
from dms_bench.methods.discrete.units import usage
from dms_bench.scaling import Architecture, Budget
from dms_bench.scaling.fit import fit_to_budget, nearest


class JointStepsSearch:
    """Walks to the budget; of each width the elements of the highest Taylor scores of the whole network stay."""

    def __init__(self, spec: JointSteps) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the architecture at the end of the steps."""
        spec, judge = self.spec, Judge(context, self.spec.fitness, self.spec.images)
        walk = _Walk(context, judge, spec.batches)
        present = walk.most
        whole = cost = usage(context.space, context.budget, present)
        for step in range(1, spec.steps + 1):
            target = whole - (whole - 1) * step / spec.steps
            if cost <= target:  # a block was worth more than a step
                continue
            block = walk.next_block(present)
            # With all of its widths a network without the block may cost less than the step is to end at.
            cost = target if block is None else min(target, walk.widest(present, block))
            narrower = walk.at(present, cost)
            shallower = None if block is None else walk.at(_without(present, block), cost)
            present = narrower
            if shallower is not None and judge(shallower, spec.batches) < judge(narrower, spec.batches):
                present = shallower
        return context.space.architecture(walk.at(present, 1.0, depth_fixed=False))


class _Walk:
    """The network at costs between the whole and the budget; costs are shares of the budget."""

    def __init__(self, context: SearchContext, judge: Judge, batches: int) -> None:
        self.space, self.budget, self.judge, self.batches = context.space, context.budget, judge, batches
        self.scores = taylor_scores(context, batches)
        self.sizes = torch.tensor(self.space.units.sizes, dtype=torch.float32)
        #: The mask of the largest network of the space.
        self.most = nearest(self.space, self.sizes, self.scores)

    def at(self, mask: Tensor, cost: float, depth_fixed: bool = True) -> Tensor:
        """Return the network with the blocks of a mask [E] and all widths scaled by one ratio to a cost, [E]."""
        space = self.space
        depths = space.kept_elements(mask)[len(space.groups) :]
        counts = torch.cat([self.sizes[: len(space.groups)], depths])
        scores = self.scores.clone()  # blocks that have gone come last
        scores[space.width_elements :] += (1 + scores.max()) * mask[space.width_elements :]
        return fit_to_budget(space, counts, scores, _scaled(self.budget, cost), depth_fixed=depth_fixed)

    def widest(self, mask: Tensor, block: int) -> float:
        """Return the cost without one more block and with the most of every width."""
        width = self.space.width_elements
        return usage(self.space, self.budget, torch.cat([self.most[:width], _without(mask, block)[width:]]))

    def next_block(self, present: Tensor) -> int | None:
        """Return the element of the block without which the network is best; None where none may go."""
        space, remaining = self.space, self.space.kept_elements(present)
        losses = {}
        for block in range(space.width_elements, space.units.total):
            stage = int(space.units.owner[block])
            spare = present[block] and remaining[stage] > space.units.minimum[stage]
            if spare and self.widest(present, block) >= 1:  # else widths could not use the budget up
                losses[block] = self.judge(_without(present, block), self.batches)
        return min(losses, key=losses.__getitem__, default=None)


def _without(mask: Tensor, block: int) -> Tensor:
    mask = mask.clone()
    mask[block] = 0
    return mask


def _scaled(budget: Budget, share: float) -> Budget:
    share *= 1 + 1e-9  # what costs just that is within it
    return Budget(tuple(replace(bound, target=share * bound.target) for bound in budget.constraints))
