"""Normalisation layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dms_bench.scaling.tracing.labels import Axes, along, lay, varying_dims
from dms_bench.scaling.tracing.rules.registry import axis_along, rule, unite_or_freeze
from dms_bench.scaling.tracing.tracer import Tracer


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit",
    "cudnn_batch_norm",
    "batch_norm",
)
def _batch_norm(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    channels = axis_along(tracer, args[0], 1)
    for operand in args[1:]:
        if isinstance(operand, Tensor):
            unite_or_freeze(tracer, channels, axis_along(tracer, operand, 0), "normalised with fixed statistics")
    shape = (out if isinstance(out, Tensor) else out[0]).shape
    if tracer.note_standardised(args[0]):
        return tracer.axes(args[0])
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
                features = axis_along(tracer, operand, dim - (data.dim() - normalised))
                unite_or_freeze(tracer, labels, features, "normalised with fixed weights")
        if normalised > 1 or not tracer.note_norm(labels):
            tracer.labels.freeze(labels, "statistics of a norm that is not a LayerNorm module")
    return tracer.axes(data)


@rule("_weight_norm_interface")
def _weight_norm(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    """Weight norm, g v / ||v||, the norm over all dimensions but one: a weight with the labels of v."""
    v, g = args[:2]
    dim = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % v.dim()
    unite_or_freeze(tracer, axis_along(tracer, v, dim), axis_along(tracer, g, dim), "scaled by a tensor of fixed size")
    if not tracer.note_normed(g, v, dim):
        for axis in tracer.axes(v):
            if varying_dims(axis) != [dim]:
                tracer.labels.freeze(axis, "inside a weight norm of what is no parameter")
    return tracer.axes(v)


@rule("native_group_norm", "group_norm")
def _group_norm(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> Axes:
    """A group goes as a whole, so that no statistics change: its channels are one element.

    Of a single group the statistics run over kept channels, as those of a LayerNorm.
    """
    data, weight, bias = args[:3]
    groups = args[6] if tracer.operator == "native_group_norm" else args[1]
    labels = axis_along(tracer, data, 1)
    for axis in tracer.axes(data):
        if varying_dims(axis) != [1]:
            tracer.labels.freeze(axis, "statistics of a group norm run over it")
    for operand in (weight, bias):
        if isinstance(operand, Tensor):
            unite_or_freeze(tracer, labels, axis_along(tracer, operand, 0), "normalised with fixed weights")
    if labels is None:
        return ()
    if groups == 1:
        if not tracer.note_norm(labels):
            tracer.labels.freeze(labels, "statistics of a norm that is no module")
        return (lay(labels, 1, data.shape),)
    by_group = labels.view(groups, -1)
    tracer.labels.unite(by_group, by_group[:, :1].expand_as(by_group))
    return (lay(by_group[:, :1].expand_as(by_group).reshape(-1), 1, data.shape),)
