import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dms_bench.scaling.importance import update_importance
from dms_bench.scaling.topk import MASK_FLOOR, Units, ascending_positions, kept_counts, soft_mask
from tests.unit.scaling import naive

distinct = st.lists(st.floats(-1e3, 1e3, allow_nan=False, width=32), min_size=1, max_size=40, unique=True)


def flat(groups: list[list[float]]) -> tuple[torch.Tensor, Units]:
    sizes = tuple(len(group) for group in groups)
    units = Units(sizes, (1,) * len(sizes), sizes, (1,) * len(sizes), (False,) * len(sizes))
    return torch.tensor([value for group in groups for value in group], dtype=torch.float64), units


@given(st.lists(distinct, min_size=1, max_size=5), st.floats(0, 1), st.floats(0.25, 4))
def test_masks_of_all_units_at_once_equal_equations_2_and_3(groups, ratio, temperature):
    importance, units = flat(groups)
    positions = ascending_positions(importance, units.owner, torch.tensor(units.starts))
    sizes = torch.tensor(units.sizes, dtype=torch.float64)
    slope = units.slope(temperature).double()
    found = soft_mask(positions / sizes[units.owner], torch.full_like(importance, ratio), slope[units.owner])
    expected = [
        value for group in groups for value in naive.mask(group, ratio, float(torch.tensor(temperature * len(group))))
    ]
    expected = [value if value > MASK_FLOOR else 0.0 for value in expected]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=1e-5)


@given(distinct, st.floats(0.05, 0.95))
def test_gradient_equals_the_closed_form_and_finite_differences(group, ratio):
    n = len(group)
    normalised = torch.tensor(naive.normalised_rank(group), dtype=torch.float64)
    slope = torch.full((n,), float(n), dtype=torch.float64)
    a = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
    for index in range(n):
        (gradient,) = torch.autograd.grad(soft_mask(normalised, a.expand(n), slope)[index], a)
        assert float(gradient) == pytest.approx(naive.mask_gradient(group, ratio, n)[index], abs=1e-6)
        step = 1e-6
        high, low = naive.mask(group, ratio + step, n)[index], naive.mask(group, ratio - step, n)[index]
        assert float(gradient) == pytest.approx((high - low) / (2 * step), abs=1e-4)


def test_small_units_are_four_times_as_steep():
    units = Units((64, 12), (1, 1), (64, 12), (1, 1), (False, True))
    assert units.slope(0.5).tolist() == [32.0, 24.0]


def test_masks_far_below_the_threshold_are_exact_zeros_not_denormal():
    ranks = torch.arange(2048) / 2048
    mask = soft_mask(ranks, torch.full((2048,), 0.9), torch.full((2048,), 2048.0))
    assert bool((mask == 0).any())
    assert float(mask[mask > 0].min()) > MASK_FLOOR


@given(st.floats(0, 1), st.integers(1, 300), st.data())
def test_kept_counts_round_and_respect_the_minimum(ratio, size, data):
    low = data.draw(st.integers(0, size))
    (kept,) = kept_counts(
        torch.tensor([ratio], dtype=torch.float64), torch.tensor([size]), torch.tensor([low])
    ).tolist()
    assert kept == max(low, round((1 - ratio) * size))


@given(st.floats(0, 5), st.floats(0, 1), st.floats(-3, 3), st.floats(0, 0.999))
def test_taylor_importance_is_equation_4(previous, value, gradient, decay):
    importance = torch.tensor([previous], dtype=torch.float64)
    mask, slope = (torch.tensor([number], dtype=torch.float64) for number in (value, gradient))
    update_importance(importance, "taylor", mask, slope, decay)
    assert float(importance) == pytest.approx(naive.taylor(previous, value, gradient, decay), rel=1e-9, abs=1e-12)


def test_snip_and_fisher_and_index():
    mask, gradient = torch.tensor([0.5, 1.0]), torch.tensor([-2.0, 3.0])
    for kind, expected in {"snip": [1.0, 3.0], "fisher": [4.0, 9.0], "index": [7.0, 7.0]}.items():
        importance = torch.tensor([7.0, 7.0])
        update_importance(importance, kind, mask, gradient, 0.0)
        assert importance.tolist() == expected


def test_equal_importance_is_ordered_by_position():
    positions = ascending_positions(torch.zeros(5), torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 3]))
    assert positions.tolist() == [0, 1, 2, 0, 1]


def test_naive_gradient_vanishes_far_from_the_threshold():
    gradients = naive.mask_gradient([float(i) for i in range(100)], 0.5, 100)
    assert sum(abs(value) > 1 for value in gradients) < 12
    assert math.isclose(-sum(gradients), 100, rel_tol=1e-3)
