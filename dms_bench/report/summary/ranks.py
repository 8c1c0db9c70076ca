"""Average ranks over tasks, and which of them differ: Demšar, Statistical Comparisons of Classifiers (JMLR 7, 2006)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from dms_bench.report.letters import letters
from dms_bench.report.statistics import LEVEL, holm


@dataclass(frozen=True)
class Ranks:
    """Average ranks, 1 is the best."""

    mean: tuple[float, ...]
    tasks: int
    #: Friedman's p-value of `all methods are equal`; None for fewer than three methods or two tasks, or where all
    #: scores of every task are equal.
    friedman: float | None
    #: Nemenyi's critical difference at 5 %; None for fewer than two tasks.
    critical: float | None
    #: In the order of the methods: those that share one differ by less than the critical difference.
    letters: tuple[str, ...]

    def against(self, control: int) -> list[float | None]:
        """Return Holm's p-values of every method against one, by the normal distribution of rank differences."""
        from scipy.special import ndtr

        if self.critical is None:
            return [None] * len(self.mean)
        others = [method for method in range(len(self.mean)) if method != control]
        error = _error(len(self.mean), self.tasks)
        raw = [2 * float(ndtr(-abs(self.mean[method] - self.mean[control]) / error)) for method in others]
        adjusted: list[float | None] = [None] * len(self.mean)
        for method, p in zip(others, holm(raw), strict=True):
            adjusted[method] = p
        return adjusted


def ranks(scores: Any) -> Ranks:
    """Rank methods in each task, and average.

    Args:
        scores: (methods, tasks), larger is better; equal ones share the mean of their ranks.
    """
    from scipy.stats import rankdata

    methods, tasks = scores.shape
    by_task = rankdata(-scores, axis=0)
    mean = tuple(float(rank) for rank in by_task.mean(axis=1))
    critical = critical_difference(methods, tasks) if tasks > 1 and methods > 1 else None
    by_rank = sorted(range(methods), key=lambda method: mean[method])
    own = [""] * methods
    if critical is not None:
        apart = {
            (first, second)
            for first, second in combinations(range(methods), 2)
            if mean[by_rank[second]] - mean[by_rank[first]] >= critical
        }
        for method, text in zip(by_rank, letters(methods, apart), strict=True):
            own[method] = text
    return Ranks(mean, tasks, _friedman(scores), critical, tuple(own))


def critical_difference(methods: int, tasks: int) -> float:
    """Return the difference of average ranks from which Nemenyi's test tells two of so many methods apart."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(1 - LEVEL, methods, math.inf)) / math.sqrt(2) * _error(methods, tasks)


def _error(methods: int, tasks: int) -> float:
    return math.sqrt(methods * (methods + 1) / (6 * tasks))


def _friedman(scores: Any) -> float | None:
    from scipy.stats import friedmanchisquare

    methods, tasks = scores.shape
    if methods < 3 or tasks < 2 or (scores == scores[0]).all():
        return None
    return float(friedmanchisquare(*scores).pvalue)


def order(mean: Sequence[float]) -> list[int]:
    """Return the methods from the best average rank to the worst."""
    return sorted(range(len(mean)), key=lambda method: mean[method])
