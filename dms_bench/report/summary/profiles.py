"""Performance profiles: in what share of its runs a method scores more than a threshold.

Score distributions of Agarwal et al. (NeurIPS 2021), section 4.2, every task with the same weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: Thresholds of the table; the curve has one at every score.
_SHOWN = 5


def profile(tasks: Sequence[Any], method: int, thresholds: Sequence[float]) -> list[float]:
    """Return the share of a method's runs above each threshold.

    Args:
        tasks: scores (methods, seeds) of each task.
        method: its place.
        thresholds: scores.
    """
    return [
        float(sum((scores[method] > threshold).mean() for scores in tasks) / len(tasks)) for threshold in thresholds
    ]


def thresholds(tasks: Sequence[Any]) -> list[float]:
    """Return every score that occurs, between which profiles are flat."""
    import numpy

    return [float(score) for score in numpy.unique(numpy.concatenate([scores.ravel() for scores in tasks]))]


def shown(tasks: Sequence[Any]) -> list[float]:
    """Return a few thresholds that part the scores of all methods into equal shares."""
    import numpy

    scores = numpy.concatenate([scores.ravel() for scores in tasks])
    shares = numpy.linspace(0, 1, _SHOWN + 2)[1:-1]
    return [float(threshold) for threshold in numpy.unique(numpy.quantile(scores, shares))]
