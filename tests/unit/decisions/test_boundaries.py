"""The levels of sequential t-tests, against simulated looks and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from dms_bench.decisions.boundaries import _EDGES, _step, levels


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3])
def test_the_first_look_spends_its_share(alpha: float, two_sided: bool) -> None:
    first = levels(3, 20, alpha, two_sided=two_sided)[3]
    assert 0.9 * alpha * 3 / 20 < first <= alpha * 3 / 20 * (1 + 1e-6)


def test_a_single_look_is_the_usual_test() -> None:
    assert levels(5, 5, 0.05, two_sided=True)[5] == pytest.approx(0.05, rel=0.06)
    assert levels(5, 5, 0.05, two_sided=True)[5] <= 0.05 * (1 + 1e-6)
    assert levels(5, 5, 0.05, two_sided=False)[:5] == (0.0,) * 5


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize(("at_least", "at_most", "alpha"), [(3, 20, 0.05), (2, 6, 0.05), (5, 12, 0.01)])
def test_all_looks_together_spend_alpha_as_they_go(at_least: int, at_most: int, alpha: float, two_sided: bool) -> None:
    """Against looks at simulated differences, whose t and p are SciPy's."""
    suites = 60_000
    differences = np.random.default_rng(5).normal(size=(suites, at_most))
    nominal = levels(at_least, at_most, alpha, two_sided=two_sided)
    rejected = np.zeros(suites, dtype=bool)
    for n in range(at_least, at_most + 1):
        mean, deviation = differences[:, :n].mean(axis=1), differences[:, :n].std(axis=1, ddof=1)
        t = mean / deviation * np.sqrt(n)
        p = 2 * stats.t.sf(np.abs(t), n - 1) if two_sided else stats.t.sf(t, n - 1)
        rejected |= p <= nominal[n]
        spent = alpha * n / at_most
        error = 4 * np.sqrt(spent / suites)
        assert rejected.mean() == pytest.approx(spent, abs=error + 0.05 * spent), n
    assert rejected.mean() <= alpha + 4 * np.sqrt(alpha / suites)


def test_a_step_is_the_distribution_of_the_next_score() -> None:
    """Against an integral over the next difference, after two that have the score of a cell's middle."""
    cell, n = 300, 2
    middle = (_EDGES[cell] + _EDGES[cell + 1]) / 2
    t = stats.t.ppf(stats.norm.cdf(middle), n - 1)
    one, other = t + 1, t - 1  # their t is t: mean t, deviation sqrt(2)
    size = np.hypot(one, other)

    angles = np.linspace(-np.pi / 2 + 1e-6, np.pi / 2 - 1e-6, 100_001)
    y = np.tan(angles)  # the next difference, over the size of the earlier ones
    values = np.stack([np.full_like(y, one / size), np.full_like(y, other / size), y])
    statistic = values.mean(axis=0) / values.std(axis=0, ddof=1) * np.sqrt(3)
    density = stats.t.pdf(np.sqrt(n) * y, n) * np.sqrt(n) * (1 + y**2)

    def below(edge: float) -> float:
        bound = stats.t.ppf(stats.norm.cdf(edge), n)
        return float(integrate.trapezoid((statistic <= bound) * density, angles))

    cumulative = np.cumsum(_step(n)[cell])
    for edge in (180, 240, 330):
        assert cumulative[edge - 1] == pytest.approx(below(_EDGES[edge]), abs=2e-4)


def test_scores_stay_normal_from_step_to_step() -> None:
    """Whatever n is, scores of normal differences are normal."""
    cumulative = stats.norm.cdf(_EDGES)[1:]
    for n in (2, 3, 10, 40):
        found = np.cumsum(np.diff(stats.norm.cdf(_EDGES)) @ _step(n))
        assert found == pytest.approx(cumulative, abs=3e-4)
        assert found[[60, 100, 140]] == pytest.approx(cumulative[[60, 100, 140]], rel=0.02), (
            "far out, where tests decide"
        )


def test_less_error_to_spend_is_a_stricter_test() -> None:
    wide, narrow = (levels(3, 20, alpha, two_sided=True) for alpha in (0.05, 0.01))
    assert all(strict < lax for strict, lax in zip(narrow[3:], wide[3:], strict=True))
