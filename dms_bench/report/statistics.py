"""The statistics that every report shares: means, paired differences, and what several of them show together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: The chance of a false claim that is accepted, in an interval or in a family of comparisons as a whole.
LEVEL = 0.05
#: A deviation below this share of the values is what rounding leaves of one that is zero.
_ROUNDING = 1e-9


class Estimate(NamedTuple):
    """A mean, the half width of its 95 % interval (None for fewer than two values), and the count."""

    mean: float | None
    ci95: float | None
    n: int


class Difference(NamedTuple):
    """Paired differences over seeds: their mean, standard deviation (None for a single one), and count."""

    mean: float
    deviation: float | None
    n: int

    @property
    def tested(self) -> bool:
        """Whether there are two differences at least, all of them numbers."""
        return self.deviation is not None and math.isfinite(self.mean) and math.isfinite(self.deviation)

    def __neg__(self) -> Difference:
        """The differences the other way round."""
        return Difference(-self.mean, self.deviation, self.n)

    def p_above(self, bound: float) -> float:
        """Return the one-sided p-value of `the mean is at most bound`: small where it is above.

        Differences that are all equal have no spread to judge by, as happens where few samples are measured: of these
        only the signs count, which are all one way by chance in 1 of 2^n.

        Raises:
            ValueError: fewer than two differences, or some that are no numbers.
        """
        if self.deviation is None or not self.tested:
            raise ValueError("a test needs two differences at least, all of them numbers")
        distance = self.mean - bound
        if self.deviation <= _ROUNDING * max(abs(self.mean), abs(bound)):
            tie = math.isclose(self.mean, bound, rel_tol=_ROUNDING, abs_tol=1e-300)
            return 1.0 if tie or distance < 0 else 0.5**self.n
        from scipy.special import stdtr

        return float(stdtr(self.n - 1, -distance / (self.deviation / math.sqrt(self.n))))

    def p(self, bound: float = 0.0) -> float:
        """Return the two-sided p-value of `the mean is bound`, by Student's paired t-test.

        Raises:
            ValueError: fewer than two differences, or some that are no numbers.
        """
        return min(1.0, 2 * min(self.p_above(bound), (-self).p_above(-bound)))

    def half(self, comparisons: int = 1) -> float | None:
        """Return the half width of an interval that holds at 95 % for so many comparisons together (Bonferroni).

        None where there is no spread to take it from.
        """
        if self.deviation is None or not self.tested or self.deviation <= _ROUNDING * abs(self.mean):
            return None
        return _half_width(self.deviation, self.n, LEVEL / comparisons)


def estimate(values: Sequence[float]) -> Estimate:
    """Estimate a mean from independent values, one per seed, with Student's t interval."""
    n = len(values)
    if n == 0:
        return Estimate(None, None, 0)
    mean = math.fsum(values) / n
    return Estimate(mean, None if n == 1 else _half_width(_deviation(values, mean), n, LEVEL), n)


def paired_difference(ours: Mapping[int, float], control: Mapping[int, float]) -> Estimate:
    """Estimate the mean of `ours - control` over the seeds that both have.

    A seed gives both the same data and initial weights, so its noise cancels in the difference.
    """
    return estimate([ours[seed] - control[seed] for seed in sorted(ours.keys() & control.keys())])


def difference(ours: Mapping[int, float], control: Mapping[int, float]) -> Difference | None:
    """Return `ours - control` over the seeds that both have, ready to be tested; None where there are none."""
    values = [ours[seed] - control[seed] for seed in sorted(ours.keys() & control.keys())]
    if not values:
        return None
    if not all(map(math.isfinite, values)):  # a trial that diverged is no number to be compared, nor to be left out
        return Difference(math.nan, math.nan, len(values))
    mean = math.fsum(values) / len(values)
    return Difference(mean, None if len(values) == 1 else _deviation(values, mean), len(values))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down procedure (Scandinavian J. Statist. 6, 1979).

    To claim those below 5 % makes any false claim in at most 5 % of all families, however they depend on one another.
    """
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _deviation(values: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _half_width(deviation: float, n: int, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 1 - level / 2)) * deviation / math.sqrt(n)
