"""From soft masks of blocks to a depth that is decided.

Shape legend:
    G: width groups
    B: removable blocks of all stages
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dms_bench.scaling.space.space import SearchSpace


def decided_depth(
    space: SearchSpace, cost: Callable[[Tensor, Tensor], Tensor], kept: Tensor, soft: Tensor, hard: Tensor
) -> Tensor:
    """Return which blocks stay, 1 or 0, [B], at a cost within one block of what the search pays for, bounds permitting.

    Each stage rounds for itself, within its bounds: a block stays where its mask is at least 1/2. Where the stages'
    roundings add up to more than the dearest block costs, blocks whose masks are nearest to 1/2 change sides, as long
    as that brings the cost nearer. Gates and choices (MES, SNS) may pay for fewer blocks than a stage must have: then
    the cost rises by those.

    Args:
        space: the search space.
        cost: what is paid for, from kept elements [G] and masks of blocks [B].
        kept: kept elements of each group, [G].
        soft: masks of the blocks that the search pays for, [B].
        hard: binary masks that the structure stands for, [B].
    """
    paid = float(cost(kept, soft))

    def gap(depth: Tensor) -> float:
        return float(cost(kept, depth)) - paid

    depth = _within_bounds(space, soft, hard)
    dearest = max((abs(gap(_toggled(depth, block)) - gap(depth)) for block in range(len(depth))), default=0.0)
    while abs(gap(depth)) > dearest:
        changed = (_toggled(depth, block) for block in _movable(space, depth, soft, removes=gap(depth) > 0))
        nearer = next((candidate for candidate in changed if abs(gap(candidate)) < abs(gap(depth))), None)
        if nearer is None:
            break
        depth = nearer
    return depth


def filled_depth(space: SearchSpace, usage: Callable[[Tensor, Tensor], Tensor], soft: Tensor, depth: Tensor) -> Tensor:
    """Return a depth with more blocks, [B], where even the largest widths do not use the budget up at the one given.

    Args:
        space: the search space.
        usage: share of the budget, from kept elements [G] and masks of blocks [B].
        soft: masks of the blocks that the search pays for, [B]; those nearest to 1/2 come back first.
        depth: which blocks stay, 1 or 0, [B].
    """
    largest = torch.tensor(space.units.maximum[: len(space.groups)], dtype=torch.float64)
    while float(usage(largest, depth)) < 1:
        returning = _movable(space, depth, soft, removes=False)
        if not returning:
            break
        depth = _toggled(depth, returning[0])
    return depth


def _within_bounds(space: SearchSpace, soft: Tensor, hard: Tensor) -> Tensor:
    """Return the binary masks with as many blocks of each stage as it may have; gates know nothing of bounds."""
    depth = torch.zeros_like(hard)
    for blocks, minimum, maximum in _stages(space):
        number = min(max(int(hard[blocks].sum()), minimum), maximum)
        order = (hard + soft)[blocks].argsort(descending=True, stable=True)
        depth[blocks.start + order[:number]] = 1
    return depth


def _stages(space: SearchSpace) -> list[tuple[slice, int, int]]:
    """Return where each stage's blocks lie among all, and how many of them may stay."""
    units, stages = space.units, []
    for unit in range(len(space.groups), len(units.sizes)):
        first = units.starts[unit] - space.width_elements
        stages.append((slice(first, first + units.sizes[unit]), units.minimum[unit], units.maximum[unit]))
    return stages


def _toggled(depth: Tensor, block: int) -> Tensor:
    toggled = depth.clone()
    toggled[block] = 1 - toggled[block]
    return toggled


def _movable(space: SearchSpace, depth: Tensor, soft: Tensor, *, removes: bool) -> list[int]:
    """Return the next block to go (or come back) of each stage whose bounds let it, masks near 1/2 first."""
    movable = []
    for blocks, minimum, maximum in _stages(space):
        number = int(depth[blocks].sum())
        if minimum < number if removes else number < maximum:
            sides = [block for block in range(blocks.start, blocks.stop) if bool(depth[block]) == removes]
            movable.append(min(sides, key=lambda block: float(soft[block]) if removes else -float(soft[block])))
    return sorted(movable, key=lambda block: abs(float(soft[block]) - 0.5))


def ranked_by_depth(importance: Tensor, depth: Tensor) -> Tensor:
    """Return an importance of blocks, [B], in which all that stay are above all that go, each in their own order."""
    ranks = torch.empty_like(importance)
    ranks[importance.argsort(stable=True)] = torch.arange(len(importance), dtype=importance.dtype)
    return ranks + depth.to(ranks) * len(ranks)
