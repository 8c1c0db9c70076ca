"""Bytes that a language model needs at inference: its weights, and the keys and values that it keeps of every token.

Both are exact in what is kept: the weights by the space's own count of parameters, the cache by the rows of the layers
that make keys and values.

Shape legend:
    G: width groups
    B: removable blocks of all stages
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dms_bench.scaling.cost.model import Cost, CostModel
from dms_bench.scaling.modules.blocks import block_of
from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.tracing.terms import Terms


@dataclass(frozen=True)
class WeightedSum:
    """Several costs, each times a number; a cost itself."""

    parts: tuple[tuple[float, Cost], ...]

    def __call__(self, kept: Tensor, blocks: Tensor) -> Tensor:
        """Return the sum, [...], from kept elements per group [..., G] and the blocks' masks [B]."""
        return torch.stack([factor * cost(kept, blocks) for factor, cost in self.parts]).sum(0)

    def to(self, device: torch.device) -> WeightedSum:
        """Return the sum on a device."""
        return WeightedSum(tuple((factor, cost.to(device)) for factor, cost in self.parts))


def memory_of(space: SearchSpace, rows: Mapping[str, Tensor], per_weight: float, per_number: float) -> WeightedSum:
    """Return the bytes of weights and cache by what an architecture keeps.

    Args:
        space: the network's search space.
        rows: of every weight that makes keys or values, which of its outputs those are, bool [outputs].
        per_weight: bytes of a weight.
        per_number: bytes of what is cached of one output: those of a number, times tokens, times sequences.
    """
    return WeightedSum(((per_weight, space.params_model), (per_number, cached_model(space, rows))))


def cached_model(space: SearchSpace, rows: Mapping[str, Tensor]) -> CostModel:
    """Return how many numbers the cache holds of one token; see `memory_of`."""
    widths = space.width_elements
    counts = Terms(space.units.owner[:widths], len(space.groups), space.blocks, {})
    terms = []
    for name, which in rows.items():
        fixed = torch.full((len(which),), -1)
        outer, inner = space.cut_dims().get((name, 0), (fixed, fixed))
        elements = torch.stack([torch.where(each < widths, each, -1) for each in (outer, inner)])[:, which]
        terms += counts.of_block(1.0, [elements], block_of(name, space.blocks))
    return CostModel(terms, len(space.groups))
