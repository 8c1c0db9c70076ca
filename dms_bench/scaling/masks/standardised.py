"""Masks in convolutions that standardise their own weight (BiT, normaliser-free networks)."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_standardised(weight: Tensor, mask: Tensor, dim: int, eps: float) -> Tensor:
    """Return a weight whose standardised form is the masked weight's, standardised over kept inputs alone.

    The module computes (v - mean v) / sqrt(var v + eps) for each output. With mu and var taken over kept
    inputs, z = mask (w - mu) / sqrt(var + eps) is what it should get. Its mean is zero, so v = c z gives it
    where c / sqrt(c^2 mean z^2 + eps) = 1.

    Args:
        weight: of the convolution, [out, in, ...].
        mask: weight of each input in the statistics, [in].
        dim: the dimension of the inputs.
        eps: what the module adds to the variance.
    """
    others = list(range(1, weight.dim()))
    shape = [1] * weight.dim()
    shape[dim] = -1
    kept = mask.to(weight.dtype).view(shape)
    shares = kept / kept.sum().clamp_min(torch.finfo(weight.dtype).tiny) * weight.size(dim)
    mean = (weight * shares).mean(others, keepdim=True)
    centred = weight - mean
    variance = (centred.square() * shares).mean(others, keepdim=True)
    masked = centred * kept
    # 1 - mean z^2, times var + eps; nothing cancels where all inputs are kept.
    missing = eps + (variance - masked.square().mean(others, keepdim=True))
    return masked * torch.sqrt(eps / missing)
