"""Fresh random weights for a network that was cut out of another."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def reinitialise(model: nn.Module, seed: int) -> None:
    """Draw the weights of `model` anew, as if it had been built at its present size.

    Every layer is reset by its own `reset_parameters`, so that the scale follows the layer's present
    fan-in; then, where the model offers `init_weights` (as timm's ResNets and transformers do), that
    has the last word. Parameters that belong to no such layer (position embeddings, class tokens,
    layer scales) keep the values that they have, whose distribution does not depend on the width.
    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
        initialise = getattr(model, "init_weights", None)
        if callable(initialise) and _takes_nothing(initialise):
            initialise()


def _takes_nothing(function: Callable[..., Any]) -> bool:
    """Whether a function can be called without arguments; some of that name want a module (`apply(init_weights)`)."""
    parameters = inspect.signature(function).parameters.values()
    return all(
        each.default is not each.empty or each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters
    )
