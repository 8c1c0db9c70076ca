"""States of recurrent layers: one hidden size for all layers and directions, and the same elements of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from dms_bench.scaling.tracing.labels import Axes, Labels, lay

#: Returns the labels along a dimension of a tensor, if it has any there.
Along = Callable[[Tensor, int], Tensor | None]


def first_state(module: nn.Module | None, zeros: Tensor, along: Along) -> Axes:
    """Return the axes of the state that a recurrent layer begins with, as large as its hidden size."""
    hidden = _hidden(module, along)
    if hidden is None or zeros.size(-1) != len(hidden):
        return ()
    return (lay(hidden, zeros.dim() - 1, zeros.shape),)


def unite_states(module: nn.RNNBase, output: Any, along: Along, labels: Labels) -> None:
    """Unite the last state with the first: a sequence of one step does not show that one becomes the other."""
    hidden = _hidden(module, along)
    if hidden is None:
        return
    if type(output) is not tuple or len(output) != 2:  # of a class of one's own
        labels.freeze(hidden, "a state that is not returned")
        return
    last = along(output[1][0] if isinstance(output[1], tuple) else output[1], -1)
    if last is None:
        labels.freeze(hidden, "a state of fixed size")
    else:
        labels.unite(hidden, last)


def _hidden(module: nn.Module | None, along: Along) -> Tensor | None:
    """Return the labels that the state of a recurrent layer has, [hidden size]."""
    weights = module._parameters if isinstance(module, nn.RNNBase | nn.RNNCellBase) else {}
    weight = weights.get("weight_hh_l0", weights.get("weight_hh"))
    return None if weight is None else along(weight, 1)
