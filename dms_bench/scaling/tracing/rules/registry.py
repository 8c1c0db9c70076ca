"""The table of rules by operator, and what rules share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from dms_bench.scaling.tracing.tracer import Rule, Tracer

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for some ATen operators, named without the underscore of in-place variants."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def axis_along(tracer: Tracer, tensor: Any, dim: int) -> Tensor | None:
    """Return the labels along one dimension of an operand, if it has any there."""
    return tracer.along(tensor, dim) if isinstance(tensor, Tensor) else None


def unite_or_freeze(tracer: Tracer, left: Tensor | None, right: Tensor | None, reason: str) -> None:
    """Unite two label vectors; what meets a dimension of fixed size is frozen."""
    if left is not None and right is not None:
        tracer.labels.unite(left, right)
    else:
        for labels in (left, right):
            if labels is not None:
                tracer.labels.freeze(labels, reason)
