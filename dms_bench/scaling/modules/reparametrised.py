"""Weights that a layer computes from other tensors before it uses them: torch's weight and spectral norm, and more.

With weight norm a weight is g v / ||v||, the norm taken over all dimensions but one. What an index of that dimension
makes goes with its g and its v; of every other dimension the norm is over, so that a cut changes g by what it takes
from ||v||, and the weight that is left stays as it is. With spectral norm it is w / (u w v), u and v kept from power
iterations: a sum to which an index that is zero in w adds nothing, so that masks act on w before it is taken.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

#: Where torch keeps what has the shape of a layer's `weight`: by hooks before the forward pass, or by parametrizations.
_DIRECTIONS = ("weight_v", "parametrizations.weight.original1")
_ORIGINALS = (*_DIRECTIONS, "weight_orig", "parametrizations.weight.original")


def listed_weight(prefix: str, names: Mapping[str, str]) -> str:
    """Return the name of the parameter that has the shape of a layer's weight, "" where there is none.

    Args:
        prefix: of the layer's parameters.
        names: the name under which torch lists a parameter, by each that it has.
    """
    return next((names[prefix + leaf] for leaf in ("weight", *_ORIGINALS) if prefix + leaf in names), "")


def layer_of(name: str) -> str:
    """Return the path of the layer that has a parameter, also where it is held for a parametrization of it."""
    path = name.rpartition(".")[0]
    parts = path.split(".")
    return ".".join(parts[:-2]) if parts[-2:-1] == ["parametrizations"] else path


def direction_of(module: nn.Module) -> Tensor | None:
    """Return v of a layer with weight norm."""
    named = dict(module.named_parameters())
    return next((named[leaf] for leaf in _DIRECTIONS if leaf in named), None)


def copy_of(model: nn.Module, shared: Mapping[int, Any] | None = None) -> nn.Module:
    """Return a copy of a network, also of one that keeps what its last forward pass computed (weights with hooks).

    Args:
        model: the network.
        shared: what is not copied, or by what it is replaced: by id.
    """
    made = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, {**made, **(shared or {})})
