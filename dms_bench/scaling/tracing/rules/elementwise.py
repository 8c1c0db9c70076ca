"""Operators that work element by element, reduce dimensions, or work on positions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dms_bench.scaling.tracing.labels import Axes, along, lay, varying_dims
from dms_bench.scaling.tracing.records import INNER, Contraction
from dms_bench.scaling.tracing.rules.registry import axis_along, rule
from dms_bench.scaling.tracing.tracer import Tracer


@rule(
    *("pointwise", "copy", "native_dropout", "dropout", "_to_copy", "bernoulli", "masked_fill", "_fused_dropout"),
    *("hardswish", "hardsigmoid", "hardtanh", "_prelu_kernel", "nan_to_num", "softplus", "log_sigmoid_forward"),
)
def _pointwise(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    shape = (out if isinstance(out, Tensor) else out[0]).shape
    operands = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    result: dict[int, Tensor] = {}
    for dim in range(len(shape)):
        present: list[Tensor] = []
        fixed = False
        for operand in operands:
            operand_dim = dim - (len(shape) - operand.dim())  # broadcasting aligns the last dimensions
            if operand_dim < 0 or operand.size(operand_dim) == 1:
                continue
            labels = axis_along(tracer, operand, operand_dim)
            if labels is None:  # what was expanded is the same for all, and grows with what it is expanded to
                fixed = fixed or operand.stride(operand_dim) != 0
            else:
                present.append(labels)
        for labels in present[1:]:
            tracer.labels.unite(present[0], labels)
        if present and fixed:
            tracer.labels.freeze(present[0], "combined with a tensor of fixed size")
        if present:
            result[dim] = lay(present[0], dim, shape)
    tracer.note_product(operands if tracer.operator == "mul" else [], out)
    return tuple(result.values())


@rule("max", "min")
def _extreme(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes | list[Axes]:
    """Of two tensors, along a dimension, or of everything, where a zero adds nothing to what is never negative."""
    of_two = len(args) > 1 and isinstance(args[1], Tensor)
    return _pointwise(tracer, args, kwargs, out) if of_two else _reduce(tracer, args, kwargs, out)


@rule(
    "mean",
    "sum",
    "amax",
    "amin",
    "var",
    "std",
    "linalg_vector_norm",
    "prod",
    "any",
    "all",
    "logsumexp",
    "argmax",
    "argmin",
)
def _reduce(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    tensor, out = args[0], out if isinstance(out, Tensor) else out[0]
    position = 2 if tracer.operator == "linalg_vector_norm" else 1
    dims = args[position] if len(args) > position else kwargs.get("dim")
    if dims is None:
        dims = range(tensor.dim())
    dims = {dim % tensor.dim() for dim in ([dims] if isinstance(dims, int) else dims)}
    keeps = out.dim() == tensor.dim()
    result = []
    for axis in tracer.axes(tensor):
        (dim,) = varying_dims(axis)
        if dim in dims and tracer.shows_heads:
            continue  # if somebody does look at it, the proof tells
        if dim in dims:
            largest = tracer.operator == "max" and len(args) == 1 and bool((tensor >= 0).all())
            adds = largest or tracer.operator in ("sum", "linalg_vector_norm")
            weight = tracer.summed_with(tensor, dim) if adds and not largest else None
            makers = tracer.makers_of(tensor, dim) if adds and weight is None else None
            if weight is None and makers is None:
                tracer.labels.freeze(axis, f"operator {tracer.operator} runs over it")
            else:  # without it, a feature adds nothing
                labels = along(axis, dim) if weight is None else weight
                tracer.trace.contractions.append(Contraction(tracer.module, 0.0, {INNER: labels}, labels, makers))
        else:
            moved = dim if keeps else dim - sum(reduced < dim for reduced in dims)
            result.append(lay(along(axis, dim), moved, out.shape))
    return tuple(result)


@rule("_softmax", "softmax", "_safe_softmax", "_log_softmax", "cumsum", "cumprod", "logcumsumexp", "sort", "topk")
def _along(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    """Operators that mix along one dimension, and keep or shorten it."""
    position = 2 if tracer.operator == "topk" else 1
    dim = args[position] if len(args) > position else kwargs.get("dim", -1)
    out = out if isinstance(out, Tensor) else out[0]
    result = []
    for axis in tracer.axes(args[0]):
        (varying,) = varying_dims(axis)
        if varying == dim % axis.dim():
            tracer.labels.freeze(axis, f"operator {tracer.operator} runs over it")
        else:
            result.append(lay(along(axis, varying), varying, out.shape))
    return tuple(result)


@rule("zeros_like", "ones_like", "full_like", "empty_like")
def _like(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    return tracer.axes(args[0])


@rule("glu")
def _gated(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    """One half times the sigmoid of the other: what stands at the same position of both goes together."""
    data = args[0]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", -1)) % data.dim()
    result = []
    for axis in tracer.axes(data):
        (varying,) = varying_dims(axis)
        labels = along(axis, varying)
        if varying == dim:
            halves = labels.view(2, -1)
            tracer.labels.unite(halves[0], halves[1])
            labels = halves[0]
        result.append(lay(labels, varying, out.shape))
    return tuple(result)


_POOLS = {
    f"{kind}{rank}d"
    for kind in ("avg_pool", "max_pool", "adaptive_avg_pool", "adaptive_max_pool")
    for rank in (1, 2, 3)
}
_RESIZES = {
    *(f"upsample_{kind}{rank}d" for kind in ("nearest", "_nearest_exact") for rank in (1, 2, 3)),
    *("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_linear1d"),
    *("upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d"),
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
}
_PADS = {f"{kind}_pad{rank}d" for kind in ("reflection", "replication") for rank in (1, 2, 3)}


@rule(
    *(_POOLS | _RESIZES | _PADS),
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
    *("fractional_max_pool2d", "fractional_max_pool3d", "max_unpool2d", "max_unpool3d"),
    *("grid_sampler_2d", "grid_sampler_3d"),
)
def _spatial(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    """Operators on the last dimensions, as many as their names say."""
    out = out if isinstance(out, Tensor) else out[0]
    rank = next(int(mark) for mark in tracer.operator if mark.isdigit())
    result = []
    for axis in tracer.axes(args[0]):
        (dim,) = varying_dims(axis)
        if axis.size(dim) == out.size(dim) and dim < axis.dim() - rank:
            result.append(lay(along(axis, dim), dim, out.shape))
        else:
            tracer.labels.freeze(axis, "resized by a spatial operator")
    for operand in args[1:]:  # a grid, or places
        if isinstance(operand, Tensor):
            tracer.freeze(operand, reason=f"operator {tracer.operator} reads positions from it")
    return tuple(result)


@rule("tril", "triu")
def _triangle(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    for axis in tracer.axes(args[0]):
        if varying_dims(axis)[0] >= axis.dim() - 2:
            tracer.labels.freeze(axis, f"operator {tracer.operator} counts along it")
    return tuple(axis for axis in tracer.axes(args[0]) if varying_dims(axis)[0] < axis.dim() - 2)


@rule("view_as_real", "_conj", "real", "imag", "view_as_complex")
def _complex(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    """Real and imaginary parts lie along one more dimension, the last, or along one less."""
    result = []
    for axis in tracer.axes(args[0]):
        (dim,) = varying_dims(axis)
        if dim < out.dim() and axis.size(dim) == out.size(dim):
            result.append(lay(along(axis, dim), dim, out.shape))
        else:
            tracer.labels.freeze(axis, "pairs of real and imaginary parts")
    return tuple(result)


@rule("_fft_r2c", "_fft_c2r", "_fft_c2c")
def _fourier(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    result = []
    for axis in tracer.axes(args[0]):
        (dim,) = varying_dims(axis)
        if dim in {over % axis.dim() for over in args[1]}:
            tracer.labels.freeze(axis, "a Fourier transform runs over it")
        else:
            result.append(lay(along(axis, dim), dim, out.shape))
    return tuple(result)
