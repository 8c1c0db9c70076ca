"""How long a network takes for one sample, on the device at hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor, nn

_WARM_UP = 3
_ROUNDS = 50
_LEAST_ROUNDS = 7
_ENOUGH_SECONDS = 1.0


def latencies(models: Sequence[nn.Module], examples: Sequence[Tensor], device: torch.device) -> list[float]:
    """Return the median time of a forward pass of each model in milliseconds.

    The models take turns, so that whatever else the machine does meets them alike.

    Args:
        models: networks to compare; they are moved to `device`, their training flag is restored.
        examples: one sample for each, with its batch dimension, shape [1, ...].
        device: where to measure.
    """
    examples = [example.to(device) for example in examples]
    trained = [model.training for model in models]
    spent: list[list[float]] = [[] for _ in models]
    try:
        with torch.inference_mode():
            for model, example in zip(models, examples, strict=True):
                _moved(model, device).eval()
                for _ in range(_WARM_UP):
                    model(example)
            started = time.perf_counter()
            for turn in range(_ROUNDS):
                if turn >= _LEAST_ROUNDS and time.perf_counter() - started > _ENOUGH_SECONDS:
                    break
                for model, example, times in zip(models, examples, spent, strict=True):
                    times.append(_seconds(model, example))
    finally:
        for model, training in zip(models, trained, strict=True):
            model.train(training)
    return [1e3 * median(times) for times in spent]


def _moved(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model to a device; of an outline on the meta device the weights are whatever is in memory."""
    outline = any(parameter.is_meta for parameter in model.parameters())
    return model.to_empty(device=device) if outline else model.to(device)


def _seconds(model: nn.Module, example: Tensor) -> float:
    _synchronise(example.device)
    started = time.perf_counter()
    model(example)
    _synchronise(example.device)
    return time.perf_counter() - started


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
