"""Convolutions, matrix products and attention: what masks scale, and what MACs are counted from.

Dimension legend of the comments: B batch, C channels, K contracted, N tokens, H heads, D head size.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from dms_bench.scaling.tracing.labels import Axes, along, lay, varying_dims
from dms_bench.scaling.tracing.records import INNER, Contraction, Product
from dms_bench.scaling.tracing.rules.registry import axis_along, rule, unite_or_freeze
from dms_bench.scaling.tracing.tracer import Tracer

#: Grouped convolutions with fewer groups keep their groups and are cut inside them.
FEW_GROUPS = 8


def _several(tracer: Tracer, tensor: Tensor, dim: int) -> list[Tensor]:
    """Return the labels of all axes along one dimension of an operand, [size] each."""
    if tensor.dim() < -dim:
        return []
    axes = [axis for axis in tracer.axes(tensor) if varying_dims(axis) == [dim % tensor.dim()]]
    return [along(axis, dim) for axis in axes]


def _product(tracer: Tracer, left: Tensor, right: Tensor, out: Tensor) -> Axes:
    """Matrix product with batch dimensions: [..., M, K] @ [..., K, N] -> [..., M, N]."""
    rank = out.dim()
    inner_left, inner_right = axis_along(tracer, left, -1), axis_along(tracer, right, -2)
    unite_or_freeze(tracer, inner_left, inner_right, "multiplied with a matrix of fixed size")
    factors: dict[int | str, Tensor] = {}
    result: list[Tensor] = []
    if inner_right is not None:
        factors[INNER] = inner_right
    for dim in range(rank):
        sides = [axis_along(tracer, left, dim)] if dim != rank - 1 else []
        sides += [axis_along(tracer, right, dim)] if dim != rank - 2 else []
        if len(sides) == 2:  # batch dimensions are matched element by element
            unite_or_freeze(tracer, sides[0], sides[1], "multiplied with a batch of fixed size")
        labels = next((side for side in sides if side is not None), None)
        if labels is not None:
            factors[dim] = labels
            result.append(lay(labels, dim, out.shape))
    for dim, side in ((rank - 2, left), (rank - 1, right)):  # what was merged into one dimension has several axes there
        for further, axis in enumerate(_several(tracer, side, dim - rank)[1:]):
            factors[f"{dim}.{further}"] = axis
            result.append(lay(axis, dim, out.shape))
    macs = float(out.numel() * left.size(-1))
    rows = tracer.rows_of(left, right)
    if inner_left is not None and rows is not None:  # queries and keys, in attention that is written out
        tracer.trace.products.append(Product(inner_left, rows, scaled=tracer.divides))
    contracted = inner_right if rows is None else None
    makers = None if contracted is None else tracer.makers_of_product(left, right)
    tracer.trace.contractions.append(Contraction(tracer.module, macs, factors, contracted, makers))
    return tuple(result)


@rule("mm", "bmm", "matmul")
def _matmul(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    return _product(tracer, args[0], args[1], out)


@rule("mv", "dot", "vdot")
def _vectors(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    """Products with a vector, as spectral norm has them: of no cost that is counted."""
    left, right = args[:2]
    inner = axis_along(tracer, left, -1)
    unite_or_freeze(tracer, inner, axis_along(tracer, right, 0), "multiplied with a vector of fixed size")
    if inner is not None:
        sides = (tracer.makers_of(side, -1) for side in (right, left))
        makers = next((found for found in sides if found is not None), None)
        tracer.trace.contractions.append(Contraction(tracer.module, 0.0, {INNER: inner}, inner, makers))
    rows = axis_along(tracer, left, 0) if left.dim() > 1 else None
    return (lay(rows, 0, out.shape),) if rows is not None else ()


@rule("_cdist_forward", "_euclidean_dist")
def _distances(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    """Distances of rows, [..., P, M] and [..., R, M]: to the sum over M, what is zero in both adds nothing."""
    left, right = args[:2]
    inner = axis_along(tracer, left, -1)
    unite_or_freeze(tracer, inner, axis_along(tracer, right, -1), "compared with rows of fixed size")
    if inner is not None:
        sides = [tracer.makers_of(side, -1) for side in (left, right)]
        makers = None if None in sides else frozenset(maker for side in sides for maker in side or ())
        tracer.trace.contractions.append(Contraction(tracer.module, 0.0, {INNER: inner}, inner, makers))
    for operand in (left, right):
        for axis in tracer.axes(operand):
            if varying_dims(axis) != [operand.dim() - 1]:
                tracer.labels.freeze(axis, "rows whose distances are computed")
    return ()


@rule("addmm", "baddbmm")
def _addmm(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    axes = _product(tracer, args[1], args[2], out)
    bias = args[0]
    for dim in range(out.dim()):
        bias_dim = dim - (out.dim() - bias.dim())
        if bias_dim >= 0 and bias.size(bias_dim) > 1:
            labels = next((along(axis, dim) for axis in axes if varying_dims(axis) == [dim]), None)
            unite_or_freeze(tracer, labels, axis_along(tracer, bias, bias_dim), "added to a tensor of fixed size")
    return axes


@rule("_grouped_mm")
def _grouped_product(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    """Rows of one matrix, each multiplied with the matrix of its group: [M, K] @ [groups, K, N] -> [M, N].

    The operator reads 16 bytes at a time, along the dimension that lies in a row in memory.
    """
    left, right = args[:2]
    if left.dim() != 2 or right.dim() != 3 or any(isinstance(each, Tensor) for each in (*args[3:], kwargs.get("bias"))):
        raise ValueError("groups of columns, or a bias")
    for operand, dim, reason in ((left, 0, "rows that come in groups"), (right, 0, "matrices of groups")):
        labels = axis_along(tracer, operand, dim)
        if labels is not None:
            tracer.labels.freeze(labels, reason)
    inner, columns = axis_along(tracer, right, 1), axis_along(tracer, right, 2)
    unite_or_freeze(tracer, axis_along(tracer, left, 1), inner, "multiplied with matrices of fixed size")
    in_a_row = (inner, columns if right.stride(2) == 1 else None)
    tracer.trace.in_runs += [labels for labels in in_a_row if labels is not None]
    macs = float(out.numel() * left.size(1))
    tracer.trace.contractions.append(Contraction(tracer.module, macs, _present({INNER: inner, 1: columns}), inner))
    return (lay(columns, 1, out.shape),) if columns is not None else ()


@rule("linear")
def _linear(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    data, weight = args[0], args[1]
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    inner, rows = axis_along(tracer, weight, 1), axis_along(tracer, weight, 0)
    unite_or_freeze(tracer, axis_along(tracer, data, -1), inner, "multiplied with a matrix of fixed size")
    factors = _present({INNER: inner, out.dim() - 1: rows})
    result = [lay(rows, out.dim() - 1, out.shape)] if rows is not None else []
    for dim in range(out.dim() - 1):
        labels = axis_along(tracer, data, dim)
        if labels is not None:
            factors[dim] = labels
            result.append(lay(labels, dim, out.shape))
    if bias is not None:
        unite_or_freeze(tracer, rows, axis_along(tracer, bias, 0), "added to a tensor of fixed size")
    macs = float(out.numel() * data.size(-1))
    tracer.trace.contractions.append(Contraction(tracer.module, macs, factors, inner))
    return tuple(result)


@rule("convolution", "_convolution")
def _convolution(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    data, weight, bias = args[0], args[1], args[2]
    strides, transposed, groups = args[3], args[6], args[8]
    passing: list[tuple[int, Tensor]] = []
    for dim in range(2, data.dim()):
        labels = axis_along(tracer, data, dim)
        pointwise = weight.size(dim) == 1 and strides[dim - 2] == 1 and out.size(dim) == data.size(dim)
        if labels is not None and pointwise:
            passing.append((dim, labels))
        elif labels is not None:
            tracer.labels.freeze(labels, "convolved over")
    inputs = axis_along(tracer, data, 1)
    first, second = axis_along(tracer, weight, 0), axis_along(tracer, weight, 1)
    kernel = math.prod(weight.shape[2:])
    positions = out.numel() / out.size(1) if not transposed else data.numel() / data.size(1)
    if groups == 1:
        inner, outer = (first, second) if transposed else (second, first)
        unite_or_freeze(tracer, inputs, inner, "convolved with a fixed number of channels")
        macs = positions * kernel * data.size(1) * out.size(1)
    elif groups < FEW_GROUPS and groups < data.size(1) // groups and not transposed:
        # A few wide groups stay; each loses the same positions of its inputs, and the same of its outputs.
        inner, outer = second, first
        if inputs is not None:
            by_group = inputs.view(groups, -1)
            tracer.labels.unite(by_group, by_group[:1].expand_as(by_group))
            inputs = by_group[0]
        unite_or_freeze(tracer, inputs, inner, "convolved with a fixed number of channels")
        if outer is not None:
            by_group = outer.view(groups, -1)
            tracer.labels.unite(by_group, by_group[:1].expand_as(by_group))
            outer = by_group[:1].expand_as(by_group).reshape(-1)
        macs = positions * kernel * weight.size(1) * out.size(1)
    else:
        # A group of a grouped convolution goes as a whole: its inputs and outputs are one element.
        if second is not None:
            tracer.labels.freeze(second, "inside the groups of a convolution")
        if inputs is None or first is None:
            unite_or_freeze(tracer, inputs, first, "convolved with a fixed number of channels")
            outer = None if transposed else first
        else:
            ins, rows = inputs.view(groups, -1), first.view(groups, -1)  # rows of inputs where it is transposed
            tracer.labels.unite(ins, ins[:, :1].expand_as(ins))
            tracer.labels.unite(rows, ins[:, :1].expand_as(rows))
            outer = ins[:, :1].expand(groups, out.size(1) // groups).reshape(-1)
        inner = None
        macs = positions * kernel * data.size(1) * out.size(1) / groups
    if bias is not None:
        unite_or_freeze(tracer, outer, axis_along(tracer, bias, 0), "added to a tensor of fixed size")
    factors = _present({INNER: inner, 1: outer})
    result = [lay(outer, 1, out.shape)] if outer is not None else []
    merged = axis_along(tracer, data, 0)  # heads that were merged into the batch
    if merged is not None:
        factors[0] = merged
        result.append(lay(merged, 0, out.shape))
    for dim, labels in passing:  # features in the place of positions, each by itself
        factors[dim] = labels
        result.append(lay(labels, dim, out.shape))
    tracer.trace.contractions.append(Contraction(tracer.module, macs, factors, inner))
    return tuple(result)


def _present(factors: dict[int | str, Tensor | None]) -> dict[int | str, Tensor]:
    return {factor: labels for factor, labels in factors.items() if labels is not None}


def _heads(tracer: Tracer, operand: Tensor, dim: int, number: int) -> Tensor | None:
    """Return labels of `number` heads; keys and values of grouped queries have fewer, each for several queries."""
    labels = axis_along(tracer, operand, dim)
    return None if labels is None else labels.repeat_interleave(number // len(labels))


@rule(
    *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"),
    *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
    *("_scaled_dot_product_attention_math", "scaled_dot_product_attention"),
)
def _attention(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    """Attention of q, k, v [B, H, N, D]: heads are matched, or head sizes; tokens stay."""
    query, key, value = args[:3]
    out = out if isinstance(out, Tensor) else out[0]
    for operand in (query, key, value):
        for dim in (-2, -1) if tracer.whole_heads else (-2,):
            labels = axis_along(tracer, operand, dim)
            if labels is not None:
                tracer.labels.freeze(labels, "tokens or head size inside attention")
    biases = [operand for operand in (*args[3:], *kwargs.values()) if isinstance(operand, Tensor)]
    for bias in biases:  # [..., H, N, N], broadcast from the right
        for dim in (-2, -1):
            labels = axis_along(tracer, bias, dim)
            if labels is not None:
                tracer.labels.freeze(labels, "tokens inside an attention bias")
    result = []
    for dim in range(out.dim() - 2):
        heads = [_heads(tracer, operand, dim, out.size(dim)) for operand in (query, key, value)]
        for labels in heads[1:]:
            unite_or_freeze(tracer, heads[0], labels, "attention heads of fixed number")
        for bias in biases:
            bias_dim = dim - (out.dim() - bias.dim())
            if bias_dim >= 0 and bias.size(bias_dim) > 1:
                unite_or_freeze(tracer, heads[0], axis_along(tracer, bias, bias_dim), "attention bias of fixed heads")
        if heads[0] is not None:
            result.append(lay(heads[0], dim, out.shape))
    factors: dict[int | str, Tensor] = {varying_dims(axis)[0]: along(axis, varying_dims(axis)[0]) for axis in result}
    inner, outer = axis_along(tracer, query, -1), axis_along(tracer, value, -1)
    unite_or_freeze(tracer, inner, axis_along(tracer, key, -1), "queries or keys of fixed size")
    if inner is not None:
        rows = query.size(-1) * query.size(-3)
        tracer.trace.products.append(Product(inner, rows, scaled=kwargs.get("scale") is None, values=outer))
    for operand, sizes in ((query, inner), (value, outer)):  # scores = q k^T, then scores @ v
        macs = query.numel() / query.size(-1) * key.size(-2) * operand.size(-1)
        with_size = factors if sizes is None else {**factors, INNER: sizes}
        tracer.trace.contractions.append(Contraction(tracer.module, macs, with_size, None))
    return tuple(result) if outer is None else (*result, lay(outer, out.dim() - 1, out.shape))
