"""Norms whose statistics run over kept features; that of layers in closed form.

Shape legend:
    N: rows
    C: features of a row
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def masked_layer_norm(
    x: Tensor, mask: Tensor, dim: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Layer norm whose mean and variance weigh features by their mask.

    Computed in the mask's precision, also under autocast; returned in that of `x`.

    Args:
        x: input with C features along `dim`.
        mask: weight of each feature in the statistics, [C].
        dim: the normalised dimension.
        weight: scale of the result, [C].
        bias: shift of the result, [C].
        eps: added to the variance.
    """
    kind = torch.promote_types(x.dtype, mask.dtype)
    with torch.autocast(x.device.type, enabled=False):
        last = x.to(kind).movedim(dim, -1)
        rows = last.reshape(-1, last.size(-1))
        scale = torch.ones_like(mask) if weight is None else weight
        shift = torch.zeros_like(mask) if bias is None else bias
        result: Tensor = _MaskedLayerNorm.apply(rows, mask.to(kind), scale.to(kind), shift.to(kind), eps)  # type: ignore[no-untyped-call]
    return result.view(last.shape).movedim(-1, dim).to(x.dtype)


def masked_rms_norm(
    x: Tensor, mask: Tensor, dim: int, weight: Tensor | None, eps: float, bias: Tensor | None = None
) -> Tensor:
    """RMS norm whose mean square weighs features by their mask; arguments as of `masked_layer_norm`."""
    kind = torch.promote_types(x.dtype, mask.dtype)
    with torch.autocast(x.device.type, enabled=False):
        rows = x.to(kind).movedim(dim, -1)
        shares = (mask / mask.sum()).to(kind)
        result = rows * torch.rsqrt((rows.square() @ shares).unsqueeze(-1) + eps)
        result = _affine(result, weight, bias)
    return result.movedim(-1, dim).to(x.dtype)


def masked_simple_norm(
    x: Tensor, mask: Tensor, dim: int, weight: Tensor | None, eps: float, bias: Tensor | None = None, fewer: int = 1
) -> Tensor:
    """Simple norm, x / sqrt(var + eps), by mask, the variance that of so many `fewer`; see `masked_layer_norm`."""
    kind = torch.promote_types(x.dtype, mask.dtype)
    with torch.autocast(x.device.type, enabled=False):
        rows = x.to(kind).movedim(dim, -1)
        _, variance = _varied(rows, mask.to(kind), fewer)
        result = _affine(rows * torch.rsqrt(variance + eps), weight, bias)
    return result.movedim(-1, dim).to(x.dtype)


def masked_deviation_norm(
    x: Tensor, mask: Tensor, dim: int, weight: Tensor | None, eps: float, bias: Tensor | None = None, fewer: int = 1
) -> Tensor:
    """(x - mean) / (std + eps), both by mask, the variance of `fewer` degrees of freedom; see `masked_layer_norm`."""
    kind = torch.promote_types(x.dtype, mask.dtype)
    with torch.autocast(x.device.type, enabled=False):
        centred, variance = _varied(x.to(kind).movedim(dim, -1), mask.to(kind), fewer)
        # The slope of the root stays finite where nothing varies.
        result = _affine(centred / (variance.clamp_min(torch.finfo(kind).tiny).sqrt() + eps), weight, bias)
    return result.movedim(-1, dim).to(x.dtype)


def masked_length_norm(
    x: Tensor, own: Tensor, mask: Tensor, dim: int, bias: Tensor | None, *, mean: bool = False
) -> Tensor:
    """Norm that divides by the length of a row, made that of its masked features.

    Args:
        x: input with C features along `dim`.
        own: what the module makes of it.
        mask: weight of each feature in the sum of squares, [C].
        dim: the normalised dimension.
        bias: shift of the result, [C].
        mean: it divides by the root of the mean square instead.
    """
    kind = torch.promote_types(x.dtype, mask.dtype)
    with torch.autocast(x.device.type, enabled=False):
        share = mask.mean().sqrt().to(kind) if mean else 1.0
        squares = x.to(kind).movedim(dim, -1).square()
        tiny = torch.finfo(kind).tiny
        ratio = (squares.sum(-1).clamp_min(tiny) / (squares @ mask.to(kind)).clamp_min(tiny)).sqrt().unsqueeze(-1)
        rows, ratio = own.to(kind).movedim(dim, -1), ratio * share
        result = rows * ratio if bias is None else torch.addcmul(bias.to(kind), rows - bias.to(kind), ratio)
    return result.movedim(-1, dim).to(x.dtype)


def _varied(rows: Tensor, mask: Tensor, fewer: int) -> tuple[Tensor, Tensor]:
    """Return rows [..., C] without their mean, and their variance [..., 1], both by mask [C]; 1 fewer: unbiased."""
    total = mask.sum()
    centred = rows - (rows @ (mask / total)).unsqueeze(-1)
    # Soft masks may sum to less than the two features that always stay.
    return centred, (centred.square() @ (mask / (total - fewer).clamp_min(0.5))).unsqueeze(-1)


def _affine(rows: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Scale and shift features [..., C]."""
    rows = rows if weight is None else rows * weight.to(rows.dtype)
    return rows if bias is None else rows + bias.to(rows.dtype)


def masked_response_norm(x: Tensor, mask: Tensor, dim: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Global response norm whose mean over channels weighs them by their mask.

    Args:
        x: input, [batch, height, width, C] or [batch, C, height, width].
        mask: weight of each channel in the mean, [C].
        dim: the dimension of the channels.
        weight: scale of the response, [C].
        bias: shift of the result, [C].
        eps: added to the mean.
    """
    kind = torch.promote_types(x.dtype, mask.dtype)
    with torch.autocast(x.device.type, enabled=False):
        last = x.to(kind).movedim(dim, -1)  # [batch, height, width, C]
        norms = torch.linalg.vector_norm(last, dim=(1, 2), keepdim=True)
        mean = (norms @ (mask / mask.sum()).to(kind)).unsqueeze(-1)
        result = last + torch.addcmul(bias.to(kind), weight.to(kind), last * (norms / (mean + eps)))
    return result.movedim(-1, dim).to(x.dtype)


def masked_group_norm(x: Tensor, mask: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Group norm of one group whose statistics, over channels and positions, weigh channels by their mask.

    Args:
        x: input, [batch, C, ...].
        mask: weight of each channel in the statistics, [C].
        weight: scale of the result, [C].
        bias: shift of the result, [C].
        eps: added to the variance.
    """
    kind = torch.promote_types(x.dtype, mask.dtype)
    with torch.autocast(x.device.type, enabled=False):
        samples = x.to(kind).reshape(*x.shape[:2], -1)  # [batch, C, positions]
        shares = (mask / (mask.sum() * samples.size(2))).to(kind)
        centred = samples - (samples.sum(2) @ shares).view(-1, 1, 1)
        result = centred * torch.rsqrt((centred.square().sum(2) @ shares) + eps).view(-1, 1, 1)
        result = result if weight is None else result * weight.to(kind).unsqueeze(1)
        result = result if bias is None else result + bias.to(kind).unsqueeze(1)
    return result.view(x.shape).to(x.dtype)


#: Elements that a CPU takes at a time: few enough to stay in its cache, enough for each call to be worth its price.
_ELEMENTS_AT_A_TIME = 2**17


def _chunks(rows: Tensor) -> list[slice]:
    whole = max(1, len(rows))
    size = max(1, _ELEMENTS_AT_A_TIME // rows.size(1)) if rows.device.type == "cpu" else whole
    return [slice(start, start + size) for start in range(0, len(rows), size)]


class _MaskedLayerNorm(torch.autograd.Function):
    """(x - mu) r scale + shift with mu = sum(s x), r = 1 / sqrt(sum(s (x - mu)^2) + eps), s = mask / sum(mask).

    Only the input and two numbers per row are kept for the backward pass, as in the library's own
    norm.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
        """Normalise rows, [N, C]."""
        shares = mask / mask.sum()
        result, mean, inverse = torch.empty_like(x), x.new_empty(len(x), 1), x.new_empty(len(x), 1)
        for chunk in _chunks(x):
            torch.mv(x[chunk], shares, out=mean[chunk].squeeze(1))
            normal = torch.sub(x[chunk], mean[chunk], out=result[chunk])
            torch.rsqrt(normal.square() @ shares + eps, out=inverse[chunk].squeeze(1))
            torch.addcmul(shift, normal.mul_(inverse[chunk]), scale, out=normal)
        ctx.save_for_backward(x, mask, scale, mean, inverse)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        """Return the gradients of x, mask, scale and shift."""
        x, mask, scale, mean, inverse = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            total = mask.sum()
            shares = mask / total
            of_x = torch.empty_like(x)
            of_shares, of_scale, of_shift = (torch.zeros_like(mask) for _ in range(3))
            for chunk in _chunks(x):
                normal = (x[chunk] - mean[chunk]).mul_(inverse[chunk])
                product = gradient[chunk] * normal
                # Sums over a row of dLoss/dnormal, alone and times normal: what mean and deviation answer for.
                first, second = gradient[chunk] @ scale, product @ scale
                of_scale += product.sum(0)
                of_shift += gradient[chunk].sum(0)
                torch.addcmul(first.unsqueeze(1), normal, second.unsqueeze(1), out=product)
                of_shares.addmv_(normal.T, first).add_(normal.mul_(product).sum(0))
                of_rows = torch.mul(gradient[chunk], scale, out=of_x[chunk])
                of_rows.addcmul_(product, shares, value=-1).mul_(inverse[chunk])
            of_shares /= -2
            # The mean's own value moves all shares' gradients alike, which normalising them takes out.
            of_mask = (of_shares - of_shares @ shares) / total
        return of_x, of_mask, of_scale, of_shift, None
