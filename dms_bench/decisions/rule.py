"""When comparisons are decided: paired t-tests at every seed, their error spent over the seeds, Holm over comparisons.

The family is the comparisons that are given together. Each asks two questions of the paired differences so far: is
their mean other than zero (two-sided t), and does it lie within the margin (two one-sided t-tests, Schuirmann 1987)?
Where m comparisons have not been found different, the first question is asked at the level that spends alpha / m over
all seeds (`boundaries`). Each that is found different leaves the rest a greater share, with which it is asked again
(Holm 1979; in sequential trials Maurer and Bretz 2013, Ye et al. 2013). The second question has a family of its own in
the same way: where m have not been found equal. A comparison is closed by the first answer.

The probability of any false claim of a difference is at most alpha: let k comparisons have a true mean of zero. Up to
the first false claim only others have been found different, so at least k were left, and the claim crossed a bound
that spends alpha / k or less; that happens to each of the k with probability alpha / k at most. How the comparisons
depend on one another does not matter. The same holds of claims of equality. It would not if an answer to one question
left more to the other: comparisons that are found different may each have been at risk of a false claim of equality.

What does matter: that differences are independent between seeds, and normal. Three of them cannot show that they are
not. A test of signs needs no normality, but could decide nothing at 5 % before six seeds. A wrong sign of a difference
that exists is not counted as a false claim; for one comparison its probability is at most alpha / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtrit

from dms_bench.decisions.boundaries import levels

Outcome = Literal["different", "equal", "undecided"]
_OUTCOMES: tuple[Outcome, ...] = ("undecided", "different", "equal")
UNDECIDED, DIFFERENT, EQUAL = range(3)
#: Spreads that are smaller than this, beside the margin or the mean, come from subtracting rounded numbers.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Rule:
    """When a comparison is decided."""

    #: Seeds before the first look, and seeds after which nothing is added.
    at_least: int
    at_most: int
    #: Smaller differences count as none; in units of the measure.
    margin: float
    #: Probability of any false claim of a difference in the family, and of any false claim of equality.
    alpha: float = 0.05

    def critical(self, comparisons: int, *, two_sided: bool) -> np.ndarray:
        """Return the t from which on a question is answered, by the comparisons that are left and the number of pairs.

        Returns:
            Shape (comparisons + 1, at_most + 1). With fewer left it is never larger, whatever was rounded.
        """
        table = np.full((comparisons + 1, self.at_most + 1), np.inf)
        freedom = np.maximum(np.arange(self.at_most + 1) - 1, 1)
        for left in range(1, comparisons + 1):
            nominal = np.array(levels(self.at_least, self.at_most, self.alpha / left, two_sided=two_sided))
            reached = nominal > 0
            table[left, reached] = -stdtrit(freedom[reached], nominal[reached] / (2 if two_sided else 1))
            if left > 1:
                table[left] = np.maximum(table[left], table[left - 1])
        return table


class Decisions(NamedTuple):
    """What families of comparisons came to; arrays of shape (families, comparisons)."""

    #: UNDECIDED, DIFFERENT or EQUAL.
    outcome: np.ndarray
    #: Number of seeds that were looked at for the decision, pairs or not; all of them where there is none.
    seeds: np.ndarray
    #: The critical t of the decision; where there is none, that of a difference at the last seed.
    critical: np.ndarray


class Decided(NamedTuple):
    """What one comparison came to."""

    outcome: Outcome
    #: Seeds that were looked at, and those of them that gave a pair.
    seeds: int
    pairs: int
    #: Mean difference and its interval, which excludes 0 if `different`, and lies within the margin if `equal`; both
    #: are as wide as the correction makes them. None where there are too few pairs.
    mean: float | None
    low: float | None
    high: float | None


def decide_all(differences: np.ndarray, rule: Rule) -> Decisions:
    """Decide many families at once.

    Args:
        differences: shape (families, comparisons, seeds), seeds in their order; NaN where a seed has no pair.
        rule: when a comparison is decided.
    """
    families, comparisons, seeds = differences.shape
    pairs, means, errors = _running(differences)
    with np.errstate(divide="ignore", invalid="ignore"):
        from_zero = np.abs(means) / errors
        # Of the two one-sided tests that decides which the mean is nearer to.
        within = (rule.margin - np.abs(means)) / errors
    # Differences without spread have no t; with measures in steps (a share of few pictures) that is no rare thing.
    without_spread = errors <= _ROUNDING * (rule.margin + np.abs(means))
    from_zero[without_spread] = within[without_spread] = -np.inf
    for_zero, for_margin = (rule.critical(comparisons, two_sided=sides) for sides in (True, False))
    outcome = np.full((families, comparisons), UNDECIDED)
    decided_at = np.full((families, comparisons), seeds)
    critical = np.full((families, comparisons), np.inf)
    for seed in range(rule.at_least - 1, seeds):
        new = np.ones(1, dtype=bool)
        while new.any():
            still_open = outcome == UNDECIDED
            bounds = [
                table[comparisons - (outcome == found).sum(axis=1, keepdims=True), pairs[:, :, seed]]
                for found, table in ((DIFFERENT, for_zero), (EQUAL, for_margin))
            ]
            different = still_open & (from_zero[:, :, seed] >= bounds[0])
            equal = still_open & ~different & (within[:, :, seed] >= bounds[1])
            new = different | equal
            critical = np.where(still_open, np.where(equal, bounds[1], bounds[0]), critical)
            outcome[different], outcome[equal] = DIFFERENT, EQUAL
            decided_at[new] = seed + 1
    return Decisions(outcome, decided_at, critical)


def decide(differences: Sequence[Sequence[float | None]], rule: Rule) -> list[Decided]:
    """Decide the comparisons of one family.

    Args:
        differences: of each comparison, one per seed in their order; None where a seed has no pair.
        rule: when a comparison is decided.
    """
    array = np.array([[np.nan if value is None else value for value in row] for row in differences], dtype=float)
    array = array.reshape(len(differences), -1)
    result = decide_all(array[None], rule)
    found = []
    for index, row in enumerate(array):
        outcome, seeds = int(result.outcome[0, index]), int(result.seeds[0, index])
        values = row[:seeds][~np.isnan(row[:seeds])]
        n, bound = len(values), float(result.critical[0, index])
        mean = float(values.mean()) if n else None
        low = high = None
        if mean is not None and n > 1 and np.isfinite(bound):
            half = bound * float(values.std(ddof=1)) / np.sqrt(n)
            low, high = mean - half, mean + half
        found.append(Decided(_OUTCOMES[outcome], seeds, n, mean, low, high))
    return found


def _running(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return number, mean and standard error of the mean of the differences up to each seed."""
    there = ~np.isnan(differences)
    pairs = there.cumsum(axis=2)
    values = np.where(there, differences, 0.0)
    # Taken from the first pair's value, which keeps the digits of small spreads.
    first = np.take_along_axis(values, there.argmax(axis=2)[:, :, None], axis=2)
    shifted = np.where(there, values - first, 0.0)
    mean = shifted.cumsum(axis=2) / np.maximum(pairs, 1)
    spread = np.maximum((shifted**2).cumsum(axis=2) - pairs * mean**2, 0.0)
    errors = np.sqrt(spread / np.maximum(pairs - 1, 1) / np.maximum(pairs, 1))
    return pairs, mean + first, errors
