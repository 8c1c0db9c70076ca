from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dms_bench.report.statistics import estimate, paired_difference

NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)


@settings(deadline=None)  # the first call imports scipy
@given(NUMBERS)
def test_the_interval_is_scipys(values: list[float]) -> None:
    from scipy import stats

    mean, half, n = estimate(values)
    error = stats.sem(values)
    assert n == len(values)
    assert mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert half == pytest.approx(stats.t.ppf(0.975, n - 1) * error, rel=1e-6, abs=1e-9)


def test_by_hand() -> None:
    mean, half, n = estimate([1.0, 2.0, 3.0])
    assert (mean, n) == (2.0, 3)
    assert half == pytest.approx(4.302653 / math.sqrt(3))  # t(0.975, 2) = 4.302653, s = 1


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert estimate([0.5]) == (0.5, None, 1)
    assert estimate([]) == (None, None, 0)


@given(st.dictionaries(st.integers(0, 5), st.floats(-1, 1)), st.dictionaries(st.integers(0, 5), st.floats(-1, 1)))
def test_only_common_seeds_are_paired(ours: dict[int, float], control: dict[int, float]) -> None:
    common = ours.keys() & control.keys()
    delta = paired_difference(ours, control)
    back = paired_difference(control, ours)
    assert delta.n == len(common)
    if common:
        assert delta.mean == pytest.approx(sum(ours[seed] - control[seed] for seed in common) / len(common), abs=1e-9)
        assert back.mean == pytest.approx(-delta.mean, abs=1e-9)
        assert back.ci95 == pytest.approx(delta.ci95)


def test_noise_that_a_seed_gives_both_cancels() -> None:
    noise = {0: 0.1, 1: -0.2, 2: 0.05}
    delta = paired_difference({seed: 0.7 + value for seed, value in noise.items()}, noise)
    assert delta.mean == pytest.approx(0.7)
    assert delta.ci95 == pytest.approx(0.0, abs=1e-12)
