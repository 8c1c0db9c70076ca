"""Which layers make the keys and values that a language model keeps of every token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench.scaling.modules.modes import modes_kept
from dms_bench_tasks.language.model import network

#: Names of layers that make keys or values alone, and of one that makes queries before them.
_ALONE, _FUSED, _OUTPUT = ("k_proj", "v_proj"), "qkv_proj", "o_proj"
#: Tokens by which it is tried; less than any window.
_TOKENS = 4


def cached_rows(model: nn.Module) -> dict[str, Tensor]:
    """Return, by the name of a weight, which of its outputs go into the cache, bool [outputs].

    Args:
        model: a language model, whole; on the meta device it is not tried.

    Raises:
        UserError: the cache that transformers makes is not what these layers return.
    """
    rows = {}
    modules = dict(model.named_modules())
    for name, module in modules.items():
        parent, _, leaf = name.rpartition(".")
        if not isinstance(module, nn.Linear):
            continue
        if leaf in _ALONE:
            rows[f"{name}.weight"] = torch.ones(module.out_features, dtype=torch.bool)
        elif leaf == _FUSED and f"{parent}.{_OUTPUT}" in modules:
            queries = modules[f"{parent}.{_OUTPUT}"].in_features
            rows[f"{name}.weight"] = torch.arange(module.out_features) >= queries
    parameter = next(model.parameters())
    found = sum(int(which.sum()) for which in rows.values())
    held = found if parameter.is_meta else held_per_token(model)
    if not found or held != found:
        kind = getattr(getattr(network(model), "config", None), "model_type", "this network")
        raise UserError(
            f"budget 'memory': {kind!r} keeps something else of every token than what layers named k_proj and v_proj, "
            "or qkv_proj, return: bound its macs, params or latency"
        )
    return rows


def held_per_token(model: nn.Module) -> int:
    """Return how many numbers transformers' own cache holds of every token of a sequence, over all layers."""
    tokens = torch.zeros(1, _TOKENS, dtype=torch.long, device=next(model.parameters()).device)
    lm = network(model)
    with modes_kept(lm), torch.no_grad():
        cache = lm.eval()(input_ids=tokens, use_cache=True).cache
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    return int(held) // _TOKENS
