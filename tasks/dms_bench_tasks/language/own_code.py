"""Modules whose code holds sizes of the whole network: told the new ones by numbers and configurations of their own.

In a cut network of ours such code runs with patched calls (`scaling.cut.calls`), which nobody else has. transformers'
own code reads the sizes from numbers of the module (`split_size` of GPT-2) or from the configuration (the heads of
Phi-3's fused projections). Which of them is found by trying: with the right ones the module answers as before.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dms_bench.errors import UserError
from dms_bench.scaling.cut.calls import PatchedForward
from dms_bench.scaling.modules.hooked import hooked
from dms_bench.scaling.modules.modes import modes_kept

#: What a module's own configuration says about it alone.
HEADS = ("num_attention_heads", "num_key_value_heads")
REFUSED = (
    "transformers' code of this network computes sizes from its configuration in a way that cannot be told to it: "
    "it can be loaded by dms_bench.load alone"
)
#: Outputs that differ by more, as a share of the largest, are other outputs.
TOLERANCE = 1e-3


def give_own_code(lm: Any) -> None:
    """Replace patched code by the library's own with the sizes that it needs, in place.

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
        calls = _calls(lm, patched)
        for module in patched:
            if module not in calls or not _unpatched(module, calls[module]):
                raise UserError(REFUSED)


def answer(lm: nn.Module) -> Tensor:
    """Return predictions for some tokens, [B, T, vocabulary]."""
    logits: Tensor = lm(input_ids=_tokens(lm), use_cache=False).logits
    return logits.float()


def by_cache(lm: nn.Module) -> Tensor | None:
    """Return predictions for the last of these tokens, [B, 1, vocabulary], with keys and values kept of the others.

    None for networks that keep none.
    """
    tokens = _tokens(lm)
    kept = lm(input_ids=tokens[:, :-1], use_cache=True).get("past_key_values")
    if kept is None:
        return None
    logits: Tensor = lm(input_ids=tokens[:, -1:], past_key_values=kept, use_cache=True).logits
    return logits.float()


def _tokens(lm: nn.Module) -> Tensor:
    size = lm.get_input_embeddings().num_embeddings  # type: ignore[operator]
    tokens: Tensor = torch.arange(3, 51, device=next(lm.parameters()).device).view(2, 24) % size
    return tokens


def same(found: Tensor, expected: Tensor) -> bool:
    """Whether outputs are the same but for rounding."""
    if found.shape != expected.shape:
        return False
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


@dataclass(frozen=True)
class _Call:
    """One call of a module, and what it returned."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Tensor]

    def answered_by(self, module: nn.Module) -> bool:
        """Whether a module returns the same."""
        try:
            found = _floats(module(*self.args, **self.kwargs))
        except Exception:  # whatever code raises whose sizes do not fit
            return False
        return len(found) == len(self.outputs) and all(map(same, found, self.outputs))


def _calls(lm: nn.Module, modules: list[nn.Module]) -> dict[nn.Module, _Call]:
    """Run some tokens; return the first call of each module that is called."""
    calls: dict[nn.Module, _Call] = {}

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        calls.setdefault(module, _Call(args, kwargs, [output.clone() for output in _floats(outputs)]))

    with hooked([module.register_forward_hook(keep, with_kwargs=True) for module in modules]):
        answer(lm)
    return calls


def _floats(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _unpatched(module: nn.Module, call: _Call) -> bool:
    """Let a module run its own code, with the first numbers under which it answers as before; whether there are any."""
    del module.__dict__["forward"]
    before = dict(vars(module))
    for numbers in _numbers(module):
        vars(module).update(numbers)
        if call.answered_by(module):
            return True
        vars(module).update(before)
    return False


def _numbers(module: nn.Module) -> Iterator[dict[str, Any]]:
    """Yield what a module's own code may need: nothing, other heads in its configuration, another number."""
    yield {}
    dims = {size for parameter in module.parameters() for size in parameter.shape}
    config, width = getattr(module, "config", None), getattr(module, "head_dim", None)
    if config is not None and isinstance(width, int) and width > 0:
        fields = [field for field in HEADS if hasattr(config, field)]
        heads = sorted(
            {size // width for size in dims} | {(one - other) // (2 * width) for one in dims for other in dims}
        )
        for values in product([number for number in heads if number > 0], repeat=len(fields)):
            own = copy.copy(config)
            vars(own).update(zip(fields, values, strict=True))
            yield {"config": own}
    for name, value in vars(module).items():
        if isinstance(value, int) and not isinstance(value, bool):
            yield from ({name: size} for size in sorted(dims) if size != value)
