"""Whether a file computes what the network computes that it was written from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dms_bench.inference.runtimes import Predict, eager

#: Largest relative difference between PyTorch and another runtime, in single precision.
TOLERANCE = 1e-4


def pair_of(example: Tensor) -> Tensor:
    """Return two different samples, [2, ...]: exporters take a batch of one for fixed."""
    return torch.cat([example[:1], example[:1].flip(-1)])


def difference(model: nn.Module, predict: Predict, example: Tensor, *, free_batch: bool = True) -> float:
    """Return how far outputs of a file are from the network's own, relative to these; the largest of all tries.

    Args:
        model: the network, in eval mode.
        predict: the file, opened in its runtime.
        example: an input, [batch, ...].
        free_batch: try it with six samples as well as with two.
    """
    pair = pair_of(example)
    tried = [pair, torch.cat([pair, pair.roll(1, -1), pair.roll(2, -1)])] if free_batch else [pair]
    return max(distance(predict(inputs), eager(model)(inputs)) for inputs in tried)


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference of outputs, relative to that of the expected ones."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))
