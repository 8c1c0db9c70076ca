"""Norms that every library writes for itself, known by what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

#: rms: x / sqrt(mean x^2 + eps) * weight; simple: x / sqrt(var x + eps) * weight, the variance unbiased;
#: layer: (x - mean x) / sqrt(var x + eps) * weight + bias; rms_unit and layer_unit: with 1 + weight for weight;
#: response (global response norm, ConvNeXt-V2): x + bias + weight * x * g / (mean g + eps), g the norm of a channel
#: over all positions. Means and variances run over features, of [..., features] or of [batch, features, ...].
Kind = Literal["rms", "rms_unit", "simple", "layer", "layer_unit", "response"]
UNIT = "_unit"


class Recognised(NamedTuple):
    """What a module computes.

    Attributes:
        kind: the norm.
        dim: the dimension of its input that the features lie along: -1, or 1 of [batch, features, height, width].
    """

    kind: Kind
    dim: int


def recognise_norms(model: nn.Module) -> dict[str, Recognised]:
    """Return the modules that compute one of the norms of this file."""
    recognised = {}
    for name, module in model.named_modules():
        parameters = dict(module.named_parameters())
        weight = parameters.get("weight")
        same = weight is not None and all(parameter.shape == weight.shape for parameter in parameters.values())
        if weight is None or not same or weight.dim() != 1 or len(weight) < 2 or not set(parameters) <= _NAMES:
            continue
        kinds: tuple[Kind, ...] = ("rms", "simple", "rms_unit")
        if "bias" in parameters:
            kinds = ("response", "layer", "layer_unit")
        if isinstance(module, nn.LayerNorm):  # of torch's own operator, which the tracer follows
            kinds = ("layer_unit",)
        candidates = (Recognised(kind, dim) for kind in kinds for dim in (-1, 1))
        norm = next((candidate for candidate in candidates if _computes(module, weight, *candidate)), None)
        if norm is not None:
            recognised[name] = norm
    return recognised


def eps_of(module: nn.Module, x: Tensor) -> float:
    """Return what a norm adds to its statistic of `x`; nn.RMSNorm may leave it to the precision."""
    eps = getattr(module, "eps", getattr(module, "variance_epsilon", None))  # the latter in transformers
    if isinstance(eps, int | float):
        return float(eps)
    return torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps  # what is summed in


_NAMES = {"weight", "bias"}


def _computes(module: nn.Module, weight: Tensor, kind: Kind, dim: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    if weight.is_meta or weight.dtype.itemsize < 4:  # tried where numbers are, and exact enough to tell
        weight = torch.empty_like(weight, device="cpu", dtype=torch.float32)
    scale, shift = (torch.rand(len(weight), generator=generator).to(weight) + 0.5 for _ in range(2))
    shape = (
        (2, len(weight), 3, 3) if dim == 1 else (2, 3, 3, len(weight)) if kind == "response" else (2, 3, len(weight))
    )
    x = torch.randn(shape, generator=generator).to(weight) * 0.01  # small: eps must matter, too
    size = [len(weight), *[1] * (x.dim() - 2)] if dim == 1 else [len(weight)]
    values = {"weight": scale} | ({"bias": shift} if kind in ("response", "layer", "layer_unit") else {})
    try:
        with torch.no_grad():
            result = functional_call(module, values, (x,))
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError):
        return False
    scale = scale + 1 if kind.endswith(UNIT) else scale
    expected = _FORMULAS[kind.removesuffix(UNIT)](x, scale.view(size), shift.view(size), dim, eps_of(module, x))
    return isinstance(result, Tensor) and result.shape == x.shape and torch.allclose(result, expected, rtol=1e-3)


def _rms(x: Tensor, weight: Tensor, bias: Tensor, dim: int, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim, keepdim=True) + eps) * weight


def _simple(x: Tensor, weight: Tensor, bias: Tensor, dim: int, eps: float) -> Tensor:
    return x * torch.rsqrt(x.var(dim, keepdim=True) + eps) * weight


def _layer(x: Tensor, weight: Tensor, bias: Tensor, dim: int, eps: float) -> Tensor:
    centred = x - x.mean(dim, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dim, keepdim=True) + eps) * weight + bias


def _response(x: Tensor, weight: Tensor, bias: Tensor, dim: int, eps: float) -> Tensor:
    norms = x.square().sum((2, 3) if dim == 1 else (1, 2), keepdim=True).sqrt()
    return x + bias + weight * x * norms / (norms.mean(dim, keepdim=True) + eps)


_FORMULAS: dict[str, Callable[[Tensor, Tensor, Tensor, int, float], Tensor]] = {
    "rms": _rms,
    "simple": _simple,
    "layer": _layer,
    "response": _response,
}
