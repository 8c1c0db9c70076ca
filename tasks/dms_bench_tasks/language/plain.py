"""A cut network as transformers sees it: without the places of removed blocks, layers counted anew."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from dms_bench.scaling.cut.stand_ins import Skip
from dms_bench_tasks.language.model import network


def plain(model: nn.Module) -> Any:
    """Return a transformers model of its own that shares the weights of `model`.

    Caches and masks go by a layer's number and by the configuration's number of layers; both are put right here.

    Args:
        model: a network, cut or not.
    """
    lm = network(model)
    tensors = [*lm.parameters(), *lm.buffers()]
    twin: Any = copy.deepcopy(lm, {id(tensor): tensor for tensor in tensors})
    holder, leaf = _layers(twin)
    kept = [index for index, layer in enumerate(getattr(holder, leaf)) if not isinstance(layer, Skip)]
    layers = nn.ModuleList([getattr(holder, leaf)[index] for index in kept])
    setattr(holder, leaf, layers)
    for number, layer in enumerate(layers):
        for module in layer.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = number  # type: ignore[assignment]
    twin.config.num_hidden_layers = len(kept)
    if getattr(twin.config, "layer_types", None):
        twin.config.layer_types = [twin.config.layer_types[index] for index in kept]
    return twin


def _layers(lm: Any) -> tuple[nn.Module, str]:
    """Return the module that holds the list of blocks, and the list's name there."""
    count = lm.config.num_hidden_layers
    for module in lm.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return module, name
    raise AssertionError(f"{type(lm).__name__} has no list of {count} blocks")
