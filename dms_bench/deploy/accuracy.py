"""The share of samples that files classify right: each sample is read once and shown to all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from dms_bench.inference.runtimes import Predict

#: Samples of a split that a file is tried on at most.
MOST = 2000


@dataclass(frozen=True)
class Measured:
    """Top-1 of each file, in percent, and the number of samples."""

    top1: tuple[float, ...]
    samples: int


def top1(predicts: Sequence[Predict], batches: Iterable[tuple[Tensor, Tensor]]) -> Measured:
    """Measure files.

    Args:
        predicts: the files, opened; each returns scores [batch, classes].
        batches: inputs [batch, ...] and labels [batch].
    """
    right, samples = [0] * len(predicts), 0
    for inputs, labels in batches:
        samples += len(labels)
        for index, predict in enumerate(predicts):
            right[index] += int((predict(inputs).argmax(1) == labels).sum())
    return Measured(tuple(100 * count / max(samples, 1) for count in right), samples)
