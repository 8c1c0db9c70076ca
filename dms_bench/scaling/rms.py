"""RMS norms, known by what they compute: every library writes its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call


def find_rms_norms(model: nn.Module) -> dict[str, int]:
    """Return the modules that compute x / sqrt(mean(x^2) + eps) * weight over one dimension.

    Returns:
        module -> that dimension: -1, or 1 of inputs [batch, features, height, width].
    """
    found = {}
    for name, module in model.named_modules():
        parameters = dict(module.named_parameters())
        if set(parameters) == {"weight"} and parameters["weight"].dim() == 1 and len(parameters["weight"]) > 1:
            dim = _dimension(module, parameters["weight"])
            if dim is not None:
                found[name] = dim
    return found


def rms_eps(module: nn.Module, x: Tensor) -> float:
    """Return what an RMS norm adds to the mean square of `x`; nn.RMSNorm may leave it to the precision."""
    eps = getattr(module, "eps", getattr(module, "variance_epsilon", None))  # the latter in transformers
    if isinstance(eps, int | float):
        return float(eps)
    return torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps  # what is summed in


def _dimension(module: nn.Module, weight: Tensor) -> int | None:
    generator = torch.Generator().manual_seed(0)
    scale = torch.rand(len(weight), generator=generator).to(weight) + 0.5
    for dim, shape in ((-1, (2, 3, len(weight))), (1, (2, len(weight), 3, 3))):
        x = torch.randn(shape, generator=generator).to(weight) * 0.01  # small: eps must matter, too
        size = [len(weight), *[1] * (x.dim() - 2)] if dim == 1 else [len(weight)]
        expected = x * torch.rsqrt(x.square().mean(dim, keepdim=True) + rms_eps(module, x)) * scale.view(size)
        try:
            with torch.no_grad():
                result = functional_call(module, {"weight": scale}, (x,))
        except (RuntimeError, TypeError, ValueError, IndexError, AssertionError):
            continue
        if isinstance(result, Tensor) and result.shape == x.shape and torch.allclose(result, expected, rtol=1e-3):
            return dim
    return None
