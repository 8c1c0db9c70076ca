"""Depth alone: which blocks can go? ShortGPT asks how much each changes its input, SLEB what its loss costs.

Blocks go in the order found until the budget is met. As the last one would take too much, it stays, and widths are
narrowed by one ratio (largest weights stay) to meet the budget exactly, as for every other method.

Sources: Men et al. 2024 (ShortGPT, block influence), Song et al. 2024 (SLEB).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dms_bench.methods.base import SearchContext
from dms_bench.methods.calibration import look, watched
from dms_bench.methods.language.spec import CalibratedSpec
from dms_bench.scaling import Architecture, weight_norms
from dms_bench.scaling.fit import fit_to_budget
from dms_bench.scaling.masks.hooks import MaskedForward
from dms_bench.scaling.masks.state import strip_hooks


class ShortGptSearch:
    """Influence of a block: 1 - mean over positions of the cosine between its input and output."""

    def __init__(self, spec: CalibratedSpec) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the architecture without the blocks of least influence."""
        names = list(context.space.blocks)
        sums = dict.fromkeys(names, 0.0)
        passes = dict.fromkeys(names, 0)

        def note(name: str, x: Tensor, output: Tensor) -> None:
            cosines = F.cosine_similarity(x.double(), output.double(), dim=-1 if x.dim() == 3 else 1)
            sums[name] += float((1 - cosines).mean())
            passes[name] += 1

        with watched({name: context.model.get_submodule(name) for name in names}, note):
            look(context, self.spec.batches)
        influence = [sums[name] / passes[name] for name in names]
        return _without(context, sorted(range(len(names)), key=lambda block: influence[block]))


class SlebSearch:
    """Greedy: of all blocks but the first and the last, the one without which the loss is least goes next."""

    def __init__(self, spec: CalibratedSpec) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the architecture without the blocks that were found one by one."""
        blocks, space = len(list(context.space.blocks)), context.space
        masked = MaskedForward(context.model, space)
        removed: list[int] = []
        try:
            while len(removed) < blocks - 2 and not _meets(context, removed):
                losses = {}
                for block in (candidate for candidate in range(1, blocks - 1) if candidate not in removed):
                    with masked.using(_mask(context, [*removed, block]).to(context.loop.device)):
                        losses[block] = look(context, self.spec.batches)
                removed.append(min(losses, key=lambda block: losses[block]))
        finally:
            strip_hooks(context.model)
        return _without(context, removed)


def _mask(context: SearchContext, removed: list[int]) -> Tensor:
    mask = context.space.full()
    mask[[context.space.width_elements + block for block in removed]] = 0
    return mask


def _meets(context: SearchContext, removed: list[int]) -> bool:
    space = context.space
    sizes = torch.tensor([float(group.size) for group in space.groups])
    return float(context.budget.usage(sizes[None], _mask(context, removed)[space.width_elements :])) <= 1


def _without(context: SearchContext, order: list[int]) -> Architecture:
    """Return the architecture without the first blocks of an order, as many as the budget asks for."""
    space = context.space
    removed: list[int] = []
    stage_of = [number for number, stage in enumerate(space.stages) for _ in stage.blocks]
    remaining = [stage.size for stage in space.stages]
    for block in order:
        if _meets(context, removed):
            break
        stage = stage_of[block]
        if remaining[stage] > space.stages[stage].minimum:
            removed.append(block)
            remaining[stage] -= 1
    importance = weight_norms(context.model, space)
    # What goes first is worth least; what was not in the order stays longest.
    for rank, block in enumerate(order):
        importance[space.width_elements + block] = (rank + 1) / (len(order) + 1)
    counts = torch.tensor([float(size) for size in [*(group.size for group in space.groups), *remaining]])
    return space.architecture(fit_to_budget(space, counts, importance, context.budget))
