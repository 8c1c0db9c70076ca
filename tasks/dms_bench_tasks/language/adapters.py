"""Low-rank adapters by peft, put in for a training stage and merged at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dms_bench.errors import UserError
from dms_bench_tasks.language.model import network
from dms_bench_tasks.language.spec import Lora


@contextmanager
def adapted(model: nn.Module, spec: Lora | None, seed: int) -> Iterator[None]:
    """Train adapters beside a network's frozen weights inside; afterwards they are part of the weights.

    Args:
        model: the network with transformers' model in it; the same modules, with other weights, when it is left.
        spec: the adapters; None: the weights are trained themselves.
        seed: of the adapters' first values.

    Raises:
        UserError: the network has no layer of those names.
    """
    if spec is None:
        yield
        return
    from peft import LoraConfig, inject_adapter_in_model

    trained = [weight for weight in model.parameters() if weight.requires_grad]
    config = LoraConfig(
        r=spec.r, lora_alpha=spec.alpha, lora_dropout=spec.dropout, target_modules=list(spec.targets), bias="none"
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(config, network(model))
    except ValueError as error:
        raise UserError(f"recipe.lora.targets {', '.join(spec.targets)}: {error}") from error
    try:
        yield
    finally:
        _merge(network(model))
        for weight in trained:
            weight.requires_grad_(True)


def _merge(lm: nn.Module) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(lm.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(lm.get_submodule(parent), leaf, module.get_base_layer())
