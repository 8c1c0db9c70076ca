"""Norms that every library writes for itself, known by what they compute."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

#: rms: x / sqrt(mean x^2 + eps) * scale; simple: x / sqrt(var x + eps) * scale, the variance unbiased;
#: layer: (x - mean x) / sqrt(var x + eps) * scale; deviation: (x - mean x) / (sqrt(var x) + eps) * scale, the variance
#: unbiased; simple_biased and deviation_biased: likewise, the variance a mean of squares;
#: length: x / sqrt(sum x^2) * scale * a number (the root of the width, say, when the module was made);
#: mean_length: x / sqrt(mean x^2) * scale * a number, with nothing added; rms_unit and layer_unit: with 1 + scale for
#: scale; all of them + shift; response (global response norm, ConvNeXt-V2): x + shift + scale * x * g / (mean g + eps),
#: g the norm of a channel over all positions. Means and variances run over features, of [..., features] or of
#: [batch, features, ...]; group: as layer, but over all positions as well.
Kind = Literal[
    "rms",
    "rms_unit",
    "simple",
    "simple_biased",
    "layer",
    "layer_unit",
    "deviation",
    "deviation_biased",
    "response",
    "group",
    "length",
    "mean_length",
]
UNIT = "_unit"
#: Norms by a variance that two features at least have.
UNBIASED = ("simple", "deviation")
#: Fewest dimensions of the input of norms over positions; those of a response norm are two.
POSITIONS = {"group": 3, "response": 4}
#: Norms that take nothing but the length of their input from it.
LENGTHS = ("length", "mean_length")
#: Largest difference of a module and a formula that it computes, relative to the largest number, in single precision.
CLOSE = 5e-4
#: What norms that keep no such number may add to a statistic in their code.
USUAL_EPS = (1e-5, 1e-6, 1e-8, 1e-12, 1e-3)
#: Features with which norms without weights are tried.
SOME = 8


class Recognised(NamedTuple):
    """What a module computes.

    Attributes:
        kind: the norm.
        dim: the dimension of its input that the features lie along: -1, or 1 of [batch, features, ...].
    """

    kind: Kind
    dim: int


class Weights(NamedTuple):
    """The names of a norm's parameters, where it has them."""

    scale: str | None
    shift: str | None


class _Trial(NamedTuple):
    """What a module made of an input, under a scale and a shift that are broadcast to it."""

    x: Tensor
    result: Tensor
    scale: Tensor
    shift: Tensor
    eps: float


def recognise_norms(model: nn.Module) -> dict[str, Recognised]:
    """Return the modules that compute one of the norms of this file."""
    recognised = {}
    for name, module in model.named_modules():
        weights = weights_of(module)
        norm = None if weights is None else _recognised(module, weights)
        if norm is not None:
            recognised[name] = norm
    return recognised


def weights_of(module: nn.Module) -> Weights | None:
    """Return the parameters of what may be a norm: one number for each feature, which scale and shift; else None."""
    parameters = dict(module.named_parameters())
    shifts = [name for name in parameters if name.startswith("b") or "shift" in name]
    scales = [name for name in parameters if name not in shifts]
    if len(scales) > 1 or len(shifts) > len(scales) or (not scales and not _may_be_bare(module)):
        return None
    sizes = {_size(parameter) for parameter in parameters.values()}
    if len(sizes) > 1 or sizes == {1} or any(value.numel() != _size(value) for value in parameters.values()):
        return None
    return Weights(next(iter(scales), None), next(iter(shifts), None))


def eps_of(module: nn.Module, x: Tensor) -> float:
    """Return what a norm adds to its statistic of `x`; nn.RMSNorm may leave it to the precision."""
    own = _own_eps(module)
    return own if own is not None else torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps  # what is summed in


def eps_in_code(module: nn.Module, kind: str) -> float | None:
    """Return what stands in the code of a norm, recognised as one of a kind, that keeps no such number; else None."""
    weights = weights_of(module)
    torchs = isinstance(module, nn.LayerNorm | nn.RMSNorm)
    if weights is None or torchs or _own_eps(module) is not None or not _is_called_norm(module):
        return None
    for dim in _dims(module, weights):
        trials = _trials(module, weights, dim)
        for eps, guess in zip(USUAL_EPS, _with_usual_eps(trials), strict=True):
            if trials and kind in _kinds(module, weights) and _computes(guess, kind, dim):
                return eps
    return None


def _own_eps(module: nn.Module) -> float | None:
    """Return the number of a module that is added to a statistic, by its name (`variance_epsilon` in transformers)."""
    named = (value for name, value in vars(module).items() if "eps" in name and isinstance(value, int | float))
    found = next(named, None)
    return None if found is None else float(found)


def _recognised(module: nn.Module, weights: Weights) -> Recognised | None:
    for dim in _dims(module, weights):
        trials = _trials(module, weights, dim)
        guesses = [trials, *(_with_usual_eps(trials) if _is_called_norm(module) and _own_eps(module) is None else ())]
        for kind in _kinds(module, weights) if trials else ():
            if any(_computes(guess, kind, dim) for guess in guesses):
                return Recognised(kind, dim)
    return None


def _with_usual_eps(trials: Sequence[_Trial]) -> list[list[_Trial]]:
    return [[trial._replace(eps=eps) for trial in trials] for eps in USUAL_EPS]


def _may_be_bare(module: nn.Module) -> bool:
    """Whether a module without parameters may be a norm; those of torch that may be without are seen as operators."""
    own = isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.modules.batchnorm._NormBase | nn.LocalResponseNorm)
    nested = any(True for _ in module.children()) or any(True for _ in module.buffers())
    return _is_called_norm(module) and not own and not nested


def _is_called_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _kinds(module: nn.Module, weights: Weights) -> tuple[Kind, ...]:
    if isinstance(module, nn.LayerNorm):  # of torch's own operator, which the tracer follows
        return ("layer_unit",) if weights.shift else ("rms", "simple", "rms_unit")
    kinds: tuple[Kind, ...] = ("length", "mean_length", "rms", "simple", "layer", "deviation")
    if _is_called_norm(module):
        kinds = (*kinds, "simple_biased", "deviation_biased")
    if weights.scale is None:
        return kinds
    return (*kinds, "group", "response", "layer_unit") if weights.shift else (*kinds, "rms_unit")


def _dims(module: nn.Module, weights: Weights) -> tuple[int, ...]:
    """Return the dimensions that features may lie along, as what is broadcast tells."""
    shape = module.get_parameter(weights.scale).shape if weights.scale else (1,)
    return (-1, 1) if len(shape) == 1 else (-1,) if shape[-1] > 1 else (1,)


def _size(parameter: Tensor) -> int:
    return max(parameter.shape, default=1)


def _trials(module: nn.Module, weights: Weights, dim: int) -> list[_Trial]:
    """Run a module at its own size and, where it can, at half of it, as a cut would leave it: with other integers."""
    shape = getattr(module, "normalized_shape", None)
    size = _size(module.get_parameter(weights.scale)) if weights.scale else int(shape[-1]) if shape else SOME
    half, smaller = copy.copy(module), max(2, size // 2)
    for key, value in vars(module).items():
        if type(value) in (int, tuple) and value in (size, (size,)):
            half.__dict__[key] = (smaller,) if isinstance(value, tuple) else smaller
    trials = [_trial(tried, weights, features, dim) for tried, features in ((module, size), (half, smaller))]
    return [] if trials[0] is None else [trial for trial in trials if trial is not None]


def _trial(module: nn.Module, weights: Weights, size: int, dim: int) -> _Trial | None:
    """Run a module on a number of features; None where it does not."""
    generator = torch.Generator().manual_seed(0)
    weight = module.get_parameter(weights.scale) if weights.scale else torch.empty(1)
    if weight.is_meta or weight.dtype.itemsize < 4:  # tried where numbers are, and exact enough to tell
        weight = torch.empty_like(weight, device="cpu", dtype=torch.float32)
    behind = list(weight.shape).index(_size(weight)) if weight.dim() > 1 else -1
    positions = weight.dim() - 1 - behind if dim == 1 and weight.dim() > 1 else 2
    shape: Sequence[int] = (2, size, *[3] * positions) if dim == 1 else (2, 3, 3, size)
    # Rows of all lengths: what is added to a statistic must matter, too.
    lengths = 10 ** torch.empty(shape).narrow(dim, 0, 1).uniform_(-3, 0, generator=generator)
    x = (torch.randn(shape, generator=generator) * lengths).to(weight)
    numbers = [torch.rand(size, generator=generator).to(weight) + 0.5 for _ in range(2)]
    values = {
        name: number.view([size if length > 1 else 1 for length in weight.shape])
        for name, number in zip(weights, numbers, strict=True)
        if name is not None
    }
    try:
        with torch.no_grad():
            result = functional_call(module, values, (x,))
    except Exception:  # whatever its code makes of such an input
        return None
    if not isinstance(result, Tensor) or result.shape != x.shape:
        return None
    wide = [size, *[1] * positions] if dim == 1 else [size]
    scale, shift = (
        (torch.full_like(number, other) if name is None else number).view(wide)
        for name, number, other in zip(weights, numbers, (1.0, 0.0), strict=True)
    )
    return _Trial(x, result, scale, shift, eps_of(module, x))


def _computes(trials: Sequence[_Trial], kind: str, dim: int) -> bool:
    if kind in LENGTHS:  # times a number that stands in its code
        ratios = [_ratio(trial, dim, mean=kind == "mean_length") for trial in trials]
        return all(abs(ratio - ratios[0]) <= CLOSE * abs(ratios[0]) for ratio in ratios)
    return trials[0].x.dim() >= POSITIONS.get(kind, 0) and all(_agrees(trial, kind, dim) for trial in trials)


def _agrees(trial: _Trial, kind: str, dim: int) -> bool:
    scale = trial.scale + 1 if kind.endswith(UNIT) else trial.scale
    expected = _FORMULAS[kind.removesuffix(UNIT)](trial.x, scale, trial.shift, dim, trial.eps)
    return _close(trial.result, expected)


def _close(result: Tensor, expected: Tensor) -> bool:
    return bool((result - expected).abs().amax() <= CLOSE * expected.abs().amax())


def _ratio(trial: _Trial, dim: int, mean: bool) -> float:
    """Return how much larger a result is than one of length (or mean square) one; not a number where it is none."""
    squares = trial.x.square()
    squares = squares.mean(dim, keepdim=True) if mean else squares.sum(dim, keepdim=True)
    expected = trial.x / squares.sqrt() * trial.scale
    result = trial.result - trial.shift
    ratio = (result * expected).sum() / expected.square().sum()
    return float(ratio) if _close(result, ratio * expected) else math.nan


def _rms(x: Tensor, scale: Tensor, shift: Tensor, dim: int, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim, keepdim=True) + eps) * scale + shift


def _simple(x: Tensor, scale: Tensor, shift: Tensor, dim: int, eps: float) -> Tensor:
    return x * torch.rsqrt(x.var(dim, keepdim=True) + eps) * scale + shift


def _layer(x: Tensor, scale: Tensor, shift: Tensor, dim: int, eps: float) -> Tensor:
    centred = x - x.mean(dim, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dim, keepdim=True) + eps) * scale + shift


def _deviation(x: Tensor, scale: Tensor, shift: Tensor, dim: int, eps: float) -> Tensor:
    return (x - x.mean(dim, keepdim=True)) / (x.std(dim, keepdim=True) + eps) * scale + shift


def _simple_biased(x: Tensor, scale: Tensor, shift: Tensor, dim: int, eps: float) -> Tensor:
    return x * torch.rsqrt(x.var(dim, correction=0, keepdim=True) + eps) * scale + shift


def _deviation_biased(x: Tensor, scale: Tensor, shift: Tensor, dim: int, eps: float) -> Tensor:
    deviation = x.std(dim, correction=0, keepdim=True) + eps
    return (x - x.mean(dim, keepdim=True)) / deviation * scale + shift


def _group(x: Tensor, scale: Tensor, shift: Tensor, dim: int, eps: float) -> Tensor:
    if dim != 1:
        return torch.full_like(x, math.nan)
    every = tuple(range(1, x.dim()))
    centred = x - x.mean(every, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(every, keepdim=True) + eps) * scale + shift


def _response(x: Tensor, scale: Tensor, shift: Tensor, dim: int, eps: float) -> Tensor:
    norms = x.square().sum((2, 3) if dim == 1 else (1, 2), keepdim=True).sqrt()
    return x + shift + scale * x * norms / (norms.mean(dim, keepdim=True) + eps)


_FORMULAS: dict[str, Callable[[Tensor, Tensor, Tensor, int, float], Tensor]] = {
    "rms": _rms,
    "simple": _simple,
    "layer": _layer,
    "deviation": _deviation,
    "simple_biased": _simple_biased,
    "deviation_biased": _deviation_biased,
    "group": _group,
    "response": _response,
}
