"""Operators that work element by element, reduce dimensions, or work on positions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dms_bench.scaling.tracing.labels import Axes, along, lay, varying_dims
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
            if labels is None:
                fixed = True
            else:
                present.append(labels)
        for labels in present[1:]:
            tracer.labels.unite(present[0], labels)
        if present and fixed:
            tracer.labels.freeze(present[0], "combined with a tensor of fixed size")
        if present:
            result[dim] = lay(present[0], dim, shape)
    return tuple(result.values())


@rule("max", "min")
def _extreme(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes | list[Axes]:
    """Of two tensors, or along a dimension."""
    of_two = len(args) > 1 and isinstance(args[1], Tensor)
    return _pointwise(tracer, args, kwargs, out) if of_two else _reduce(tracer, args, kwargs, out)


@rule("mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "prod", "any", "all")
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
            tracer.labels.freeze(axis, f"operator {tracer.operator} runs over it")
        else:
            moved = dim if keeps else dim - sum(reduced < dim for reduced in dims)
            result.append(lay(along(axis, dim), moved, out.shape))
    return tuple(result)


@rule("_softmax", "softmax", "_safe_softmax", "_log_softmax", "cumsum", "sort", "topk", "argmax")
def _softmax(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    dim = args[1] if len(args) > 1 and isinstance(args[1], int) else kwargs.get("dim", -1)
    result = []
    for axis in tracer.axes(args[0]):
        if varying_dims(axis) == [dim % axis.dim()]:
            tracer.labels.freeze(axis, f"operator {tracer.operator} runs over it")
        else:
            result.append(axis)
    return tuple(result)


@rule(
    *("avg_pool2d", "max_pool2d_with_indices", "max_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d"),
    *("adaptive_max_pool2d", "avg_pool1d", "adaptive_avg_pool1d", "max_pool1d"),
    *("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa"),
    *("_upsample_bicubic2d_aa", "upsample_nearest1d", "upsample_linear1d"),
    *("reflection_pad2d", "replication_pad2d"),
)
def _spatial(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    out = out if isinstance(out, Tensor) else out[0]
    result = []
    for axis in tracer.axes(args[0]):
        (dim,) = varying_dims(axis)
        if axis.size(dim) == out.size(dim) and dim <= axis.dim() - 3:
            result.append(lay(along(axis, dim), dim, out.shape))
        else:
            tracer.labels.freeze(axis, "resized by a spatial operator")
    return tuple(result)
