"""Magnitudes of weights with weight norm after a cut: the weights that are left stay as they were."""

from __future__ import annotations

import torch
from torch import Tensor


def cut_weight_norm(g: Tensor, v: Tensor, dim: int, stays: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Return g and v of a cut weight, of which g v / ||v|| is what is left of the whole one.

    Args:
        g: magnitudes of the whole weight, of size one but along `dim`.
        v: its direction.
        dim: the dimension over which the norm is not taken.
        stays: whether each index stays, by dimension of v, where some may go.
    """
    rows = stays.get(dim, torch.ones(v.size(dim), dtype=torch.bool))
    g, v = (tensor.index_select(dim, _indices(rows, tensor)) for tensor in (g, v))
    kept = v
    for across, some in stays.items():
        kept = kept if across == dim else kept.index_select(across, _indices(some, v))
    whole, left = _norms(v, dim), _norms(kept, dim)
    share = torch.where(whole > 0, left / whole, 1.0)
    # A weight that is zero where it is left has no direction: any, of no magnitude.
    gone = (left == 0) & (whole > 0)
    return (g * share).to(g.dtype), torch.where(gone, torch.ones_like(kept), kept)


def _indices(stays: Tensor, tensor: Tensor) -> Tensor:
    return stays.nonzero().flatten().to(tensor.device)


def _norms(v: Tensor, dim: int) -> Tensor:
    others = [other for other in range(v.dim()) if other != dim]
    norms: Tensor = torch.linalg.vector_norm(v, dim=others, keepdim=True, dtype=torch.double)
    return norms
