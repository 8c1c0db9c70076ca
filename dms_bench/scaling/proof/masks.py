"""Which elements and blocks the proof removes: masks that together leave nothing untried.

A group whose layers lie in a removed block is not compared, and a block that is never removed is not either.
So the blocks take turns, and each mask cuts some elements of every group: others than the masks before, as far as
its minimum allows. Two more masks leave less to luck: one that cuts the end of every group, of neighbours by other
shares, so that halves which a network's code takes apart are not cut alike; and one that keeps the fewest elements.

Shape legend:
    M: masks
    E: elements of all units, width groups before stages
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

#: Smallest and largest share of a group's elements that the first masks keep. They differ from group to group, so
#: that no code works because sizes happen to be in proportion.
KEPT_SHARES = (0.4, 0.8)
#: Shares that the lopsided mask keeps from the beginning of each group, in turn.
LOPSIDED_SHARES = (0.25, 0.75, 0.5)

#: Size, and fewest that may stay.
Unit = tuple[int, int]


def proof_masks(groups: Sequence[Unit], stages: Sequence[Unit], seed: int, least: int = 2) -> Tensor:
    """Return as few masks as remove every block, and keep it, at least once (two, where minimums let it), and two more.

    Args:
        groups: width groups; each keeps an element at least.
        stages: runs of blocks.
        seed: of the choice of elements.
        least: number of masks beside the two more, at least.

    Returns:
        Binary masks, [M, E].
    """
    groups = [(size, min(size, max(low, 1))) for size, low in groups]
    turns = max([least, *(math.ceil(size / (size - low)) for size, low in stages if size > low)])
    generator = torch.Generator().manual_seed(seed)
    widths = [
        torch.cat([_in_turn(size, low, turns, generator), _lopsided(size, low, number), _fewest(size, low, generator)])
        for number, (size, low) in enumerate(groups)
    ]
    depths = []
    blocks = 0
    for size, low in stages:
        # Neighbours take turns: the block before a removed one is there, and hands on what is not its own input.
        removed = (torch.arange(size) + blocks) % turns == torch.arange(turns).unsqueeze(1)
        taken = (~removed).float() if size > low else torch.ones(turns, size)
        depths.append(torch.cat([taken, torch.ones(2, size)]))
        blocks += size
    return torch.cat([torch.ones(turns + 2, 0), *widths, *depths], dim=1)


def _lopsided(size: int, low: int, number: int) -> Tensor:
    """Return a mask of one group, the `number`th, without its last elements, [1, size]."""
    mask = torch.ones(1, size)
    mask[:, max(low, round(LOPSIDED_SHARES[number % len(LOPSIDED_SHARES)] * size)) :] = 0
    return mask


def _fewest(size: int, low: int, generator: torch.Generator) -> Tensor:
    """Return a mask of one group with as few elements as it may have, [1, size]."""
    mask = torch.zeros(1, size)
    mask[:, torch.randperm(size, generator=generator)[:low]] = 1
    return mask


def _in_turn(size: int, low: int, number: int, generator: torch.Generator) -> Tensor:
    """Return masks of one group, [M, size]: windows of a random order are cut, one behind the other."""
    order = torch.randperm(size, generator=generator)
    masks = torch.ones(number, size)
    most, start = size - low, 0
    for turn, mask in enumerate(masks):
        least, largest = KEPT_SHARES
        share = least + (largest - least) * float(torch.rand(1, generator=generator))
        left = max(0, size - start)  # never cut so far
        number_cut = left if turn == number - 1 and left else size - round(share * size)
        number_cut = max(number_cut, left - (number - 1 - turn) * most, 1)
        window = (start + torch.arange(min(number_cut, most))) % size
        mask[order[window]] = 0
        start += len(window)
    return masks


def gaps(masks: Tensor, groups: Sequence[int], blocks: Sequence[int], layers: Iterable[Unit]) -> dict[int, str]:
    """Return the units that some masks do not try, with what is missing.

    Args:
        masks: binary, [M, E].
        groups: sizes of the width groups.
        blocks: sizes of the stages.
        layers: where groups have layers: (group, block that the layer lies in, or -1), blocks numbered over all stages.
    """
    cut = masks < 0.5
    missed: dict[int, str] = {}
    sizes = [*groups, *blocks]
    by_unit = torch.split(cut, sizes, dim=1)
    alive = torch.cat([~cut[:, sum(groups) :], torch.ones(len(cut), 1, dtype=torch.bool)], dim=1)  # block -1: always
    for unit, removed in enumerate(by_unit):
        never_kept, never_cut = int(removed.all(0).sum()), int((~removed.any(0)).sum())
        what = "elements" if unit < len(groups) else "blocks"
        if never_cut or never_kept:
            missing = f"{never_cut} never removed, {never_kept} never kept"
            missed[unit] = f"of {sizes[unit]} {what} {missing} in the proof"
    for unit, block in layers:
        if not bool((by_unit[unit].any(1) & alive[:, block]).any()):
            missed[unit] = "layers that no mask of the proof cuts while they are there"
    return missed
