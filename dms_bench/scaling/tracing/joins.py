"""Columns of blocks: inputs of a layer that leave the network together with the removable block that made them.

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


def columns_of_blocks(contraction: Contraction, trace: Trace, blocks: Sequence[str]) -> Tensor | None:
    """Return the block that each contracted index, a column of the weight, belongs to.

    Args:
        contraction: what may read a concatenation.
        trace: the forward pass.
        blocks: paths of the removable blocks.

    Returns:
        Indices of blocks, -1 for columns that belong to none, [contracted size]; None where all belong to none.
    """
    joined = trace.joins.get(contraction.data)
    if joined is None or contraction.contracted is None:
        return None
    inside = any(contraction.module.startswith(block + ".") for block in blocks)
    made = {
        id(call.output): (blocks.index(call.name), id(call.entry)) for call in trace.calls if call.name in set(blocks)
    }
    columns, before = [], 0
    for operand in joined[1]:
        block, entry = made.get(id(operand), (-1, 0))
        columns.append(torch.full((operand.size(1),), block if entry == before and not inside else -1))
        before = id(operand)
    block_columns = torch.cat(columns)
    fits = len(block_columns) == len(contraction.contracted) and bool((block_columns >= 0).any())
    return block_columns if fits else None
