"""Attention with fused projections: transformers' code finds queries, keys and values by the configuration's heads.

In a cut network of ours that code runs with patched positions (`scaling.cut.calls`), which nobody else has. Here each
such attention gets a configuration of its own instead, which is all that transformers' own code needs.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench.scaling.cut.calls import PatchedForward
from dms_bench.scaling.modules.modes import modes_kept

#: What an attention's own configuration says about it alone.
HEADS = ("num_attention_heads", "num_key_value_heads")
_REFUSED = (
    "transformers' code of this network computes sizes from its configuration in a way that cannot be told to it: "
    "it can be loaded by dms_bench.load alone"
)
#: Outputs that differ by more, as a share of the largest, are other outputs.
_TOLERANCE = 1e-3


def give_configurations(lm: Any) -> None:
    """Replace patched code by the library's own with a configuration per attention, in place.

    Args:
        lm: a model of transformers with its weights; it must answer as before.

    Raises:
        UserError: it does not.
    """
    patched = [module for module in lm.modules() if isinstance(module.__dict__.get("forward"), PatchedForward)]
    if not patched:
        return
    with modes_kept(lm), torch.no_grad():
        lm.eval()
        before = _answer(lm)
        try:
            for module in patched:
                config = copy.copy(lm.config)
                for field, heads in zip(HEADS, _heads(module), strict=True):
                    setattr(config, field, heads)
                module.__dict__["config"] = config
                del module.__dict__["forward"]
            after = _answer(lm)
        except (AttributeError, RuntimeError) as error:  # layers of other names, or sizes that do not fit
            raise UserError(_REFUSED) from error
    if not float((after - before).abs().max()) <= _TOLERANCE * float(before.abs().max()):
        raise UserError(_REFUSED)


def _heads(attention: Any) -> tuple[int, int]:
    """Return the numbers of query heads and of key/value heads that a fused attention's weights have."""
    queries = attention.o_proj.in_features // attention.head_dim
    every = attention.qkv_proj.out_features // attention.head_dim
    return queries, (every - queries) // 2


def _answer(lm: nn.Module) -> Tensor:
    """Return predictions for some tokens, [1, T, vocabulary]."""
    tokens = torch.arange(3, 19, device=next(lm.parameters()).device)[None]
    logits: Tensor = lm(input_ids=tokens, use_cache=False).logits
    return logits.float()
