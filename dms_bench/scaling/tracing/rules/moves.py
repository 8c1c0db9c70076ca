"""Operators that only move elements: the labels are moved by the same operator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from dms_bench.scaling.tracing.labels import FIXED, Axes, along, lay, varying_dims
from dms_bench.scaling.tracing.operators import MOVES, SPLITS
from dms_bench.scaling.tracing.rules.registry import axis_along, rule, unite_or_freeze
from dms_bench.scaling.tracing.tracer import Tracer


@rule(*MOVES)
def _move(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    if tracer.operator == "roll":
        over = args[2] if len(args) > 2 else kwargs.get("dims", ())
        _freeze_along(tracer, args[0], over or range(args[0].dim()), "rolled by a fixed number")
    if tracer.operator == "slice" and (args[4] if len(args) > 4 else kwargs.get("step", 1)) != 1:
        _freeze_along(tracer, args[0], [args[1] if len(args) > 1 else 0], "sliced in steps")
    return tuple(_apply(out, axis, args, kwargs, tracer) for axis in tracer.axes(args[0]))


def _freeze_along(tracer: Tracer, tensor: Tensor, dims: Iterable[int], reason: str) -> None:
    """Exclude what lies along dimensions in which the operator counts positions."""
    for dim in dims:
        labels = axis_along(tracer, tensor, dim)
        if labels is not None:
            tracer.labels.freeze(labels, reason)


@rule("channel_shuffle")
def _shuffle(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    """Channels of the same place in every group go together, so that those that stay are shuffled alike."""
    labels = axis_along(tracer, args[0], 1)
    if labels is not None:
        by_group = labels.view(args[1], -1)
        tracer.labels.unite(by_group, by_group[:1].expand_as(by_group))
    return tuple(_apply(out, axis, args, kwargs, tracer) for axis in tracer.axes(args[0]))


def _apply(out: Tensor, axis: Tensor, args: Any, kwargs: Any, tracer: Tracer) -> Tensor:
    name = tracer.operator
    if name in ("view", "_unsafe_view"):  # an expanded axis may need a copy
        return axis.reshape(out.shape)
    result = getattr(torch.ops.aten, name)(axis, *args[1:], **{k: v for k, v in kwargs.items() if k != "memory_format"})
    assert isinstance(result, Tensor)
    return result


@rule("as_strided")
def _restride(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    """Where the shape stays, this only rewrites the strides of dimensions of size one."""
    if out.shape == args[0].shape:
        return tracer.axes(args[0])
    tracer.freeze(args[0], reason="operator as_strided in a form that its rule does not know")
    return ()


@rule(*SPLITS)
def _split(tracer: Tracer, args: Any, kwargs: Any, out: list[Tensor]) -> list[Axes]:
    moved = [getattr(torch.ops.aten, tracer.operator)(axis, *args[1:], **kwargs) for axis in tracer.axes(args[0])]
    return [tuple(pieces[index] for pieces in moved) for index in range(len(out))]


@rule("cat", "stack")
def _join(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    tensors = [tensor for tensor in args[0] if tensor.numel()]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    join = getattr(torch.ops.aten, tracer.operator)
    # Along the joined dimension labels stand side by side; along the others they are united.
    joined: list[Tensor] = []
    for tensor in tensors:
        labelled = torch.full(tensor.shape, FIXED)
        for axis in tracer.axes(tensor):
            dims = varying_dims(axis)
            if tracer.operator == "cat" and dims == [dim]:
                labelled = axis
        joined.append(labelled)
    result: list[Tensor] = []
    if any(varying_dims(axis) for axis in joined):
        result.append(join(joined, dim))
    for across in range(tensors[0].dim()):
        if tracer.operator == "cat" and across == dim:
            continue
        operands = [axis_along(tracer, tensor, across) for tensor in tensors]
        present = [labels for labels in operands if labels is not None]
        if not present:
            continue
        for labels in operands[1:]:
            unite_or_freeze(tracer, operands[0], labels, "joined with a tensor of fixed size")
        moved = across if tracer.operator == "cat" or across < dim else across + 1
        result.append(lay(present[0], moved, out.shape))
    return tuple(result)


@rule("new_empty")
def _fresh(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    """A tensor that takes nothing but the kind of its operand."""
    return ()


@rule("constant_pad_nd")
def _pad(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    result = []
    for axis in tracer.axes(args[0]):
        (dim,) = varying_dims(axis)
        pads = args[1]
        first = 2 * (axis.dim() - 1 - dim)  # pads are listed from the last dimension, two each
        before, after = pads[first : first + 2] if first < len(pads) else (0, 0)
        labels = torch.nn.functional.pad(along(axis, dim), (before, after), value=FIXED)
        result.append(lay(labels, dim, out.shape))
    return tuple(result)


@rule("embedding")
def _embedding(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    rows = axis_along(tracer, args[0], 0)
    if rows is not None:
        tracer.labels.freeze(rows, "entries of an embedding")
    columns = axis_along(tracer, args[0], 1)
    return (lay(columns, out.dim() - 1, out.shape),) if columns is not None else ()


@rule("_embedding_bag", "_embedding_bag_forward_only")
def _bag(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes | list[Axes]:
    return _embedding(tracer, args, kwargs, out[0])


@rule("index_select", "gather")
def _chosen(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    """Entries of one dimension, chosen by numbers; the code gives the other dimensions of these numbers their size."""
    data, dim = args[0], args[1] % args[0].dim()
    result = []
    for axis in tracer.axes(data):
        (varying,) = varying_dims(axis)
        if varying == dim or axis.size(varying) != out.size(varying):
            tracer.labels.freeze(axis, "entries of a table")
        else:
            result.append(lay(along(axis, varying), varying, out.shape))
    return tuple(result)


@rule("scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy", "index_reduce")
def _scattered(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    """Entries of one dimension, written to places that numbers tell; along the others both operands go together."""
    data, dim, source = args[0], args[1] % args[0].dim(), args[3] if len(args) > 3 else None
    sources = [source] if isinstance(source, Tensor) and source.dim() == data.dim() else []
    result = []
    for across in range(data.dim()):
        labels = [axis_along(tracer, operand, across) for operand in (data, *sources)]
        present = [vector for vector in labels if vector is not None]
        if across == dim or any(operand.size(across) != out.size(across) for operand in sources):
            for vector in present:
                tracer.labels.freeze(vector, "places that are written to")
        elif present:  # what is written to is as large as what is written, in whatever way its size was computed
            tracer.labels.unite(present[0], present[-1])
            result.append(lay(present[0], across, out.shape))
    return tuple(result)


@rule("index_put")
def _written(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    """Entries of the first dimensions, written to places that numbers tell; along the others both go together."""
    data, indices, values = args[:3]
    looked_up = len(indices)
    if any(index is None for index in indices):
        raise ValueError("places along other dimensions than the first")
    result = []
    for across in range(data.dim()):
        labels, behind = axis_along(tracer, data, across), across - data.dim() + values.dim()
        others = axis_along(tracer, values, behind) if behind >= 0 and across >= looked_up else None
        if across < looked_up and labels is not None:
            tracer.labels.freeze(labels, "places that are written to")
        elif labels is not None or others is not None:
            alike = behind >= 0 and values.size(behind) == data.size(across)
            if alike and labels is not None and others is None and values.stride(behind) != 0:
                tracer.labels.freeze(labels, "written to by a tensor of fixed size")
            present = [vector for vector in (labels, others) if vector is not None]
            tracer.labels.unite(present[0], present[-1])
            result.append(lay(present[0], across, out.shape))
    for across in range(values.dim() - (data.dim() - looked_up)):
        rows = axis_along(tracer, values, across)
        if rows is not None:
            tracer.labels.freeze(rows, "entries that are written by numbers")
    return tuple(result)


@rule("index")
def _index(tracer: Tracer, args: Any, kwargs: Any, out: Tensor) -> Axes:
    """Looking up along dimensions without labels; a table's own entries are frozen."""
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
