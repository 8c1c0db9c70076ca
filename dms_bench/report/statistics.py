"""The few statistics of a leaderboard: a mean with its 95 % interval, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean, the half width of its 95 % interval (None for fewer than two values), and the count."""

    mean: float | None
    ci95: float | None
    n: int


def estimate(values: Sequence[float]) -> Estimate:
    """Estimate a mean from independent values, one per seed, with Student's t interval."""
    n = len(values)
    if n == 0:
        return Estimate(None, None, 0)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, 1)
    from scipy.special import stdtrit

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Estimate(mean, float(stdtrit(n - 1, (1 + _CONFIDENCE) / 2)) * deviation / math.sqrt(n), n)


def paired_difference(ours: Mapping[int, float], control: Mapping[int, float]) -> Estimate:
    """Estimate the mean of `ours - control` over the seeds that both have.

    A seed gives both the same data and initial weights, so its noise cancels in the difference.
    """
    return estimate([ours[seed] - control[seed] for seed in sorted(ours.keys() & control.keys())])
