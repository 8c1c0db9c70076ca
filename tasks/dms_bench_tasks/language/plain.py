"""A cut network as transformers sees it: without the places of removed blocks, layers counted anew."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from dms_bench.scaling.cut.stand_ins import Skip
from dms_bench_tasks.language.model import network

#: What modules call the number of their layer, by which caches know them.
_NUMBERS = ("layer_idx", "layer_id")


def plain(model: nn.Module) -> Any:
    """Return a transformers model of its own that shares the weights of `model`.

    Caches and masks go by a layer's number and by the configuration's number of layers; both are put right here.

    Args:
        model: a network, cut or not.
    """
    lm = network(model)
    tensors = [*lm.parameters(), *lm.buffers()]
    # Some modules keep a state of their last call, which may have a graph.
    states = [value for module in lm.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    shared = {id(tensor): tensor for tensor in tensors} | {id(state): state.detach() for state in states}
    twin: Any = copy.deepcopy(lm, shared)
    holder, leaf = _layers(twin)
    count = len(getattr(holder, leaf))
    kept = [index for index, layer in enumerate(getattr(holder, leaf)) if not isinstance(layer, Skip)]
    layers = nn.ModuleList([getattr(holder, leaf)[index] for index in kept])
    setattr(holder, leaf, layers)
    for number, layer in enumerate(layers):
        for module in layer.modules():
            for name in _NUMBERS:
                if isinstance(getattr(module, name, None), int):
                    setattr(module, name, number)
    twin.config.num_hidden_layers = len(kept)
    for field, value in vars(twin.config).items():  # what each layer is, such as `layer_types`
        if isinstance(value, list) and len(value) == count:
            setattr(twin.config, field, [value[index] for index in kept])
    return twin


def _layers(lm: Any) -> tuple[nn.Module, str]:
    """Return the module that holds the list of blocks, and the list's name there."""
    count = lm.config.num_hidden_layers
    for module in lm.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return module, name
    raise AssertionError(f"{type(lm).__name__} has no list of {count} blocks")
