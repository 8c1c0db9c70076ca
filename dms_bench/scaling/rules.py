"""How labels travel through ATen operators.

Dimension legend of the comments: B batch, C channels, K contracted, N tokens, H heads, D head size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dms_bench.scaling.labels import FIXED, Axes, along, lay, varying_dims
from dms_bench.scaling.trace import Contraction, NormCall, Rule, Tracer

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Any:
    """Register a rule for some operators."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def _axis_along(tracer: Tracer, tensor: Any, dim: int) -> Tensor | None:
    """Return the labels along one dimension of an operand, if it has any there."""
    if not isinstance(tensor, Tensor):
        return None
    for axis in tracer.axes(tensor):
        if varying_dims(axis) == [dim % tensor.dim()]:
            return along(axis, dim)
    return None


def _unite_or_freeze(tracer: Tracer, left: Tensor | None, right: Tensor | None, reason: str) -> None:
    """Unite two label vectors; what meets a dimension of fixed size is frozen."""
    if left is not None and right is not None:
        tracer.labels.unite(left, right)
    else:
        for labels in (left, right):
            if labels is not None:
                tracer.labels.freeze(labels, reason)


# --- operators that only move elements: the labels are moved by the same operator ---

MOVES = {
    *("view", "reshape", "_unsafe_view", "permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "slice"),
    *("select", "clone", "contiguous", "detach", "alias", "flip", "roll", "repeat", "unfold", "lift_fresh"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "narrow"),
}


@rule(*MOVES)
def _move(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    return tuple(_apply(out, axis, args, kwargs, tracer) for axis in tracer.axes(args[0]))


def _apply(out: Tensor, axis: Tensor, args: Any, kwargs: Any, tracer: Tracer) -> Tensor:
    name = tracer.operator
    if name in ("view", "_unsafe_view"):  # an expanded axis may need a copy
        return axis.reshape(out.shape)
    result = getattr(torch.ops.aten, name)(axis, *args[1:], **{k: v for k, v in kwargs.items() if k != "memory_format"})
    assert isinstance(result, Tensor)
    return result


@rule("split", "split_with_sizes", "chunk", "unbind", "tensor_split")
def _split(tracer: Tracer, args: Any, kwargs: Any, out: list[Tensor]) -> list[Axes]:
    moved = [getattr(torch.ops.aten, tracer.operator)(axis, *args[1:], **kwargs) for axis in tracer.axes(args[0])]
    return [tuple(parts[index] for parts in moved) for index in range(len(out))]


@rule("cat", "stack")
def _join(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    tensors = [tensor for tensor in args[0] if tensor.numel()]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    join = getattr(torch.ops.aten, tracer.operator)
    # Along the joined dimension labels stand side by side; along the others they are united.
    across: list[list[Tensor | None]] = [[] for _ in range(out.dim())]
    joined: list[Tensor] = []
    for tensor in tensors:
        own = torch.full(tensor.shape, FIXED)
        for axis in tracer.axes(tensor):
            dims = varying_dims(axis)
            if tracer.operator == "cat" and dims == [dim]:
                own = axis
        joined.append(own)
    result: list[Tensor] = []
    if any(varying_dims(own) for own in joined):
        result.append(join(joined, dim))
    for other in range(tensors[0].dim()):
        if tracer.operator == "cat" and other == dim:
            continue
        across[other] = [_axis_along(tracer, tensor, other) for tensor in tensors]
        present = [labels for labels in across[other] if labels is not None]
        if not present:
            continue
        for labels in across[other][1:]:
            _unite_or_freeze(tracer, across[other][0], labels, "joined with a tensor of fixed size")
        place = other if tracer.operator == "cat" or other < dim else other + 1
        result.append(lay(present[0], place, out.shape))
    return tuple(result)


@rule("constant_pad_nd")
def _pad(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    result = []
    for axis in tracer.axes(args[0]):
        (dim,) = varying_dims(axis)
        pads = args[1]
        place = axis.dim() - 1 - dim  # pads are listed from the last dimension, two each
        before, after = pads[2 * place : 2 * place + 2] if 2 * place < len(pads) else (0, 0)
        labels = torch.nn.functional.pad(along(axis, dim), (before, after), value=FIXED)
        result.append(lay(labels, dim, out.shape))
    return tuple(result)


# --- operators that work element by element ---


@rule("pointwise", "copy", "native_dropout", "dropout", "_to_copy", "bernoulli", "masked_fill", "_fused_dropout")
def _pointwise(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    shape = (out if isinstance(out, Tensor) else out[0]).shape
    operands = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    result: dict[int, Tensor] = {}
    for dim in range(len(shape)):
        present: list[Tensor] = []
        fixed = False
        for operand in operands:
            own = dim - (len(shape) - operand.dim())  # broadcasting aligns the last dimensions
            if own < 0 or operand.size(own) == 1:
                continue
            labels = _axis_along(tracer, operand, own)
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
        if dim in dims:
            tracer.labels.freeze(axis, f"operator {tracer.operator} runs over it")
        else:
            place = dim if keeps else dim - sum(other < dim for other in dims)
            result.append(lay(along(axis, dim), place, out.shape))
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


# --- contractions: what a mask must scale, and what MACs are counted from ---


def _product(tracer: Tracer, left: Tensor, right: Tensor, out: Tensor) -> Axes:
    """Matrix product with batch dimensions: [..., M, K] @ [..., K, N] -> [..., M, N]."""
    rank = out.dim()
    inner_left, inner_right = _axis_along(tracer, left, -1), _axis_along(tracer, right, -2)
    _unite_or_freeze(tracer, inner_left, inner_right, "multiplied with a matrix of fixed size")
    constant = float(out.numel() * left.size(-1))
    factors: list[Tensor] = []
    result: list[Tensor] = []
    if inner_right is not None:
        factors.append(inner_right)
    for dim in range(rank):
        sides = [_axis_along(tracer, left, dim)] if dim != rank - 1 else []
        sides += [_axis_along(tracer, right, dim)] if dim != rank - 2 else []
        if len(sides) == 2:  # batch dimensions are matched element by element
            _unite_or_freeze(tracer, sides[0], sides[1], "multiplied with a batch of fixed size")
        labels = next((side for side in sides if side is not None), None)
        if labels is not None:
            factors.append(labels)
            result.append(lay(labels, dim, out.shape))
    for labels in factors:
        constant /= len(labels)
    tracer.trace.contractions.append(Contraction(tracer.module, constant, tuple(factors), inner_right))
    return tuple(result)


@rule("mm", "bmm", "matmul")
def _matmul(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    return _product(tracer, args[0], args[1], out)


@rule("addmm", "baddbmm")
def _addmm(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    axes = _product(tracer, args[1], args[2], out)
    bias = args[0]
    for dim in range(out.dim()):
        own = dim - (out.dim() - bias.dim())
        if own >= 0 and bias.size(own) > 1:
            labels = next((along(axis, dim) for axis in axes if varying_dims(axis) == [dim]), None)
            _unite_or_freeze(tracer, labels, _axis_along(tracer, bias, own), "added to a tensor of fixed size")
    return axes


@rule("linear")
def _linear(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    data, weight = args[0], args[1]
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    inner, rows = _axis_along(tracer, weight, 1), _axis_along(tracer, weight, 0)
    _unite_or_freeze(tracer, _axis_along(tracer, data, -1), inner, "multiplied with a matrix of fixed size")
    factors = [labels for labels in (inner, rows) if labels is not None]
    result = [lay(rows, out.dim() - 1, out.shape)] if rows is not None else []
    for dim in range(out.dim() - 1):
        labels = _axis_along(tracer, data, dim)
        if labels is not None:
            factors.append(labels)
            result.append(lay(labels, dim, out.shape))
    if bias is not None:
        _unite_or_freeze(tracer, rows, _axis_along(tracer, bias, 0), "added to a tensor of fixed size")
    constant = out.numel() * data.size(-1) / math.prod(len(labels) for labels in factors)
    tracer.trace.contractions.append(Contraction(tracer.module, constant, tuple(factors), inner))
    return tuple(result)


@rule("convolution", "_convolution")
def _convolution(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    data, weight, bias = args[0], args[1], args[2]
    transposed, groups = args[6], args[8]
    for dim in range(2, data.dim()):
        labels = _axis_along(tracer, data, dim)
        if labels is not None:
            tracer.labels.freeze(labels, "convolved over")
    inputs = _axis_along(tracer, data, 1)
    first, second = _axis_along(tracer, weight, 0), _axis_along(tracer, weight, 1)
    kernel = math.prod(weight.shape[2:])
    positions = out.numel() / out.size(1) if not transposed else data.numel() / data.size(1)
    if groups == 1:
        inner, outer = (first, second) if transposed else (second, first)
        _unite_or_freeze(tracer, inputs, inner, "convolved with a fixed number of channels")
        factors = [labels for labels in (inner, outer) if labels is not None]
        constant = positions * kernel * data.size(1) * out.size(1) / math.prod(len(labels) for labels in factors)
    else:
        # A group of a grouped convolution goes as a whole: its inputs and outputs are one element.
        if second is not None:
            tracer.labels.freeze(second, "inside the groups of a convolution")
        outer = first if not transposed else None
        if inputs is None or outer is None:
            _unite_or_freeze(tracer, inputs, outer, "convolved with a fixed number of channels")
        else:
            ins, outs = inputs.view(groups, -1), outer.view(groups, -1)
            tracer.labels.unite(ins, ins[:, :1].expand_as(ins))
            tracer.labels.unite(outs, ins[:, :1].expand_as(outs))
            outer = ins[:, :1].expand_as(outs).reshape(-1)
        inner = None
        factors = [outer] if outer is not None else []
        constant = positions * kernel * data.size(1) * out.size(1) / groups / math.prod(len(labels) for labels in factors)
    if bias is not None:
        _unite_or_freeze(tracer, outer, _axis_along(tracer, bias, 0), "added to a tensor of fixed size")
    tracer.trace.contractions.append(Contraction(tracer.module, constant, tuple(factors), inner))
    return (lay(outer, 1, out.shape),) if outer is not None else ()


@rule(
    *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"),
    *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
    *("_scaled_dot_product_attention_math", "scaled_dot_product_attention"),
)
def _attention(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    """Attention of q, k, v [B, H, N, D]: heads are matched, head sizes and tokens stay."""
    query, key, value = args[:3]
    out = out if isinstance(out, Tensor) else out[0]
    for operand in (query, key, value):
        for dim in (-2, -1):
            labels = _axis_along(tracer, operand, dim)
            if labels is not None:
                tracer.labels.freeze(labels, "tokens or head size inside attention")
    for operand in (*args[3:], *kwargs.values()):
        tracer.freeze(operand, reason="attention bias")
    result = []
    for dim in range(out.dim() - 2):
        heads = [_axis_along(tracer, operand, dim) for operand in (query, key, value)]
        for labels in heads[1:]:
            _unite_or_freeze(tracer, heads[0], labels, "attention heads of fixed number")
        if heads[0] is not None:
            result.append(lay(heads[0], dim, out.shape))
    factors = tuple(along(axis, varying_dims(axis)[0]) for axis in result)
    scale = math.prod(len(labels) for labels in factors)
    for other in (query, value):  # scores = q k^T, then scores @ v
        constant = query.numel() / query.size(-1) * key.size(-2) * other.size(-1) / scale
        tracer.trace.contractions.append(Contraction(tracer.module, constant, factors, None))
    return tuple(result)


@rule("embedding")
def _embedding(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    rows = _axis_along(tracer, args[0], 0)
    if rows is not None:
        tracer.labels.freeze(rows, "entries of an embedding")
    columns = _axis_along(tracer, args[0], 1)
    return (lay(columns, out.dim() - 1, out.shape),) if columns is not None else ()


@rule("index", "index_select", "gather", "take")
def _index(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    """Looking up along dimensions without labels; a table's own entries are frozen."""
    if tracer.operator != "index":
        tracer.freeze(args[0], reason=f"operator {tracer.operator} has no rule")
        return ()
    indices = list(args[1]) + [None] * (args[0].dim() - len(args[1]))
    looked_up = [dim for dim, index in enumerate(indices) if index is not None]
    result = []
    for axis in tracer.axes(args[0]):
        (dim,) = varying_dims(axis)
        contiguous = looked_up == list(range(looked_up[0], looked_up[-1] + 1))
        if dim in looked_up or not contiguous:
            tracer.labels.freeze(axis, "entries of a table")
        else:
            grown = out.dim() - args[0].dim()
            result.append(lay(along(axis, dim), dim + grown if dim > looked_up[-1] else dim, out.shape))
    return tuple(result)


# --- normalisation ---


@rule("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "cudnn_batch_norm", "batch_norm")
def _batch_norm(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    channels = _axis_along(tracer, args[0], 1)
    for operand in args[1:]:
        if isinstance(operand, Tensor):
            _unite_or_freeze(tracer, channels, _axis_along(tracer, operand, 0), "normalised with fixed statistics")
    shape = (out if isinstance(out, Tensor) else out[0]).shape
    for axis in tracer.axes(args[0]):
        if varying_dims(axis) != [1]:
            tracer.labels.freeze(axis, "statistics of a batch norm run over it")
    return (lay(channels, 1, shape),) if channels is not None else ()


@rule("native_layer_norm", "layer_norm")
def _layer_norm(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    data, normalised = args[0], len(args[1])
    for axis in tracer.axes(data):
        (dim,) = varying_dims(axis)
        if dim < data.dim() - normalised:
            continue
        labels = along(axis, dim)
        for operand in args[2:4]:
            if isinstance(operand, Tensor):
                own = dim - (data.dim() - normalised)
                _unite_or_freeze(tracer, labels, _axis_along(tracer, operand, own), "normalised with fixed weights")
        if normalised > 1 or not tracer.note_norm(labels):
            tracer.labels.freeze(labels, "statistics of a norm that is not a LayerNorm module")
    return tracer.axes(data)


@rule("native_group_norm", "group_norm")
def _group_norm(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    tracer.freeze(*args[:3], reason="statistics of a group norm")
    return ()
