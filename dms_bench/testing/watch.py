"""What a network is shown."""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from dms_bench.scaling.modules.hooked import hooked

#: How often each input was seen, by a digest of its numbers.
Inputs = Counter[str]


def watch(model: nn.Module, inputs: Inputs, *, training: bool) -> RemovableHandle:
    """Count what a network is called with; `training`: only in steps that train it."""

    # A function: copies of the network keep it as it is.
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        if training and not (module.training and torch.is_grad_enabled()):
            return
        batch = next((value for value in (*args, *kwargs.values()) if torch.is_tensor(value)), None)
        if batch is not None:
            rows = batch.detach().cpu().contiguous()
            inputs.update(hashlib.sha256(row.view(torch.uint8).numpy().tobytes()).hexdigest() for row in rows)

    return model.register_forward_pre_hook(hook, with_kwargs=True)


def watched(model: nn.Module, inputs: Inputs) -> AbstractContextManager[None]:
    """Count all that a network is called with, for a while."""
    return hooked([watch(model, inputs, training=False)])
