"""Slots: parts of a concatenation that leave the network together with a removable block.

A module that concatenates what each of its blocks returns (C2f of YOLO) hands on the same tensor twice where
a block is removed, as its output is its input. One that sets `drops_repeats = True` promises to leave out what
occurs twice in a row; the columns of the weight behind the concatenation that read the second one then
belong to the block: they carry its mask, go when it goes, and cost nothing when it is gone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dms_bench.scaling.tracing.records import Contraction, Trace


def slots_of(contraction: Contraction, trace: Trace, blocks: Sequence[str]) -> Tensor | None:
    """Return the block that each contracted index belongs to.

    Args:
        contraction: what may read a concatenation.
        trace: the forward pass.
        blocks: paths of the removable blocks.

    Returns:
        Indices of blocks, -1 for indices that belong to none, [contracted size]; None where all belong to none.
    """
    joined = trace.joins.get(contraction.data)
    if joined is None or contraction.contracted is None:
        return None
    inside = any(contraction.module.startswith(block + ".") for block in blocks)
    made = {
        id(call.output): (blocks.index(call.name), id(call.entry)) for call in trace.calls if call.name in set(blocks)
    }
    parts, before = [], 0
    for operand in joined[1]:
        block, entry = made.get(id(operand), (-1, 0))
        parts.append(torch.full((operand.size(1),), block if entry == before and not inside else -1))
        before = id(operand)
    owners = torch.cat(parts)
    fits = len(owners) == len(contraction.contracted) and bool((owners >= 0).any())
    return owners if fits else None
