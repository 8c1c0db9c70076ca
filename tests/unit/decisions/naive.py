"""The rule once more, written out: one suite, one comparison, one look after the other, from its definition."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy.special import stdtr

from dms_bench.decisions import Rule
from dms_bench.decisions.boundaries import levels


def decide(rows: Sequence[Sequence[float]], rule: Rule) -> list[tuple[str, int]]:
    """Return each comparison's outcome and number of seeds; NaN where a seed has no pair."""
    found: dict[int, tuple[str, int]] = {}
    for seen in range(rule.at_least, len(rows[0]) + 1):
        changed = True
        while changed:
            changed = False
            left = {kind: len(rows) - sum(outcome == kind for outcome, _ in found.values()) for kind in _KINDS}
            new = {}
            for index, row in enumerate(rows):
                values = [value for value in row[:seen] if not math.isnan(value)]
                if index in found or len(values) < rule.at_least or len(set(values)) == 1:
                    continue
                zero = 2 * min(_tail(values, 0.0), 1 - _tail(values, 0.0))
                above = _tail(values, -rule.margin)
                below = _tail([-value for value in values], -rule.margin)
                if zero <= _level(rule, left["different"], len(values), two_sided=True):
                    new[index] = ("different", seen)
                elif max(above, below) <= _level(rule, left["equal"], len(values), two_sided=False):
                    new[index] = ("equal", seen)
            found |= new
            changed = bool(new)
    return [found.get(index, ("undecided", len(rows[0]))) for index in range(len(rows))]


_KINDS = ("different", "equal")


def _tail(values: Sequence[float], mean: float) -> float:
    """Return the probability of as large a t, or a larger one, if `mean` is the true mean."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return float(stdtr(len(values) - 1, (mean - statistics.fmean(values)) / error))


def _level(rule: Rule, left: int, pairs: int, *, two_sided: bool) -> float:
    return min(
        levels(rule.at_least, rule.at_most, rule.alpha / many, two_sided=two_sided)[pairs]
        for many in range(1, left + 1)
    )
