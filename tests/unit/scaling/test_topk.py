import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dms_bench.scaling.space.units import Units
from dms_bench.scaling.structure.importance import update_importance
from dms_bench.scaling.structure.topk import (
    MASK_FLOOR,
    ascending_positions,
    hard_mask,
    normalised_rank,
    rounded,
    slopes,
    soft_mask,
)
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
    slope = slopes(units, temperature).double()
    ranks = normalised_rank(positions, sizes[units.owner])
    found = soft_mask(ranks, torch.full_like(importance, ratio), slope[units.owner])
    expected = [
        value
        for group in groups
        for value in naive.mask(group, ratio, float(torch.tensor(naive.slope(len(group), temperature, False))))
    ]
    expected = [value if value > MASK_FLOOR else 0.0 for value in expected]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=1e-5)


@given(distinct, st.floats(0.05, 0.95))
def test_gradient_equals_the_closed_form_and_finite_differences(group, ratio):
    n = len(group)
    normalised = torch.tensor(naive.goes_at(group), dtype=torch.float64)
    slope = torch.full((n,), float(n), dtype=torch.float64)
    a = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
    for index in range(n):
        (gradient,) = torch.autograd.grad(soft_mask(normalised, a.expand(n), slope)[index], a)
        assert float(gradient) == pytest.approx(naive.mask_gradient(group, ratio, n)[index], abs=1e-6)
        step = 1e-6
        high, low = naive.mask(group, ratio + step, n)[index], naive.mask(group, ratio - step, n)[index]
        assert float(gradient) == pytest.approx((high - low) / (2 * step), abs=1e-4)


def test_small_units_are_four_times_as_steep():
    units = Units((64, 12, 1), (1, 1, 0), (64, 12, 1), (1, 1, 1), (False, True, True))
    assert slopes(units, 0.5).tolist() == [32.0, 24.0, 4.0]


def test_masks_far_below_the_threshold_are_exact_zeros_not_denormal():
    ranks = torch.arange(2048) / 2048
    mask = soft_mask(ranks, torch.full((2048,), 0.9), torch.full((2048,), 2048.0))
    assert bool((mask == 0).any())
    assert float(mask[mask > 0].min()) > MASK_FLOOR


def ranks(size: int) -> torch.Tensor:
    return normalised_rank(torch.arange(size, dtype=torch.float64), torch.full((size,), float(size)))


def masks(size: int, ratio: float, slope: float) -> torch.Tensor:
    return soft_mask(ranks(size), torch.tensor(ratio, dtype=torch.float64), torch.tensor(slope, dtype=torch.float64))


any_size = st.integers(1, 300)
#: Slopes from a tenth of N to ten times the steepest that a search has, 4 N.
any_factor = st.floats(0.1, 40)


@given(any_size, st.floats(0, 1), any_factor)
def test_a_cut_keeps_exactly_the_elements_whose_mask_is_at_least_one_half(size, ratio, factor):
    soft = masks(size, ratio, factor * size)
    hard = hard_mask(ranks(size), torch.tensor(ratio, dtype=torch.float64))
    assert torch.equal(hard, (soft >= 0.5).double())
    exact = (1 - ratio) * size
    if abs(exact - math.floor(exact) - 0.5) > 1e-9:
        assert int(hard.sum()) == naive.kept(size, ratio) == int(rounded(torch.tensor(exact, dtype=torch.float64)))
    assert hard.tolist() == sorted(hard.tolist())  # the most important ones


def test_a_tie_keeps_one_more():
    for size in range(1, 50):
        for k in range(size):
            ratio = torch.tensor(1 - (k + 0.5) / size)  # in the precision of a search, k + 1/2 elements
            single = normalised_rank(torch.arange(size), torch.full((size,), float(size)))
            soft = soft_mask(single, ratio, torch.tensor(4.0 * size))
            assert torch.equal(hard_mask(single, ratio), (soft >= 0.5).float())
            assert int(rounded(torch.tensor(k + 0.5))) == k + 1


@given(any_size, st.floats(0, 1), any_factor)
def test_masks_sum_to_what_is_kept_but_for_the_sigmoids_tails(size, ratio, factor):
    """In units of N / lambda. Masks steeper than their spacing are steps, and add the ripple that rounding has."""
    slope = factor * size
    waves = (2 * math.pi / math.sinh(min(2 * math.pi**2 * n / factor, 700)) for n in range(1, 9))
    ripple = min(factor / 2, sum(waves))
    missed = abs(float(masks(size, ratio, slope).sum()) - (1 - ratio) * size) / (size / slope)
    assert missed <= math.log(2) + ripple + 1e-6
    tail = 6 / slope
    if tail < ratio < 1 - tail:
        assert missed <= 1e-2 + ripple


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12])
def test_what_is_paid_for_blocks_is_unbiased(size):
    """Kept blocks less the sum of their masks, averaged over the ratio, for the slope of a stage."""
    units = Units((size,), (0,), (size,), (1,), (True,))
    (slope,) = slopes(units, 1.0).tolist()
    ratios = torch.linspace(0, 1, 2001, dtype=torch.float64)
    kept = sum(float(hard_mask(ranks(size), ratio).sum()) for ratio in ratios)
    paid = sum(float(masks(size, float(ratio), slope).sum()) for ratio in ratios)
    assert abs(kept - paid) / len(ratios) < 0.005


@given(st.floats(0, 5), st.floats(0, 1), st.floats(-3, 3), st.floats(0, 0.999))
def test_taylor_importance_is_equation_4(previous, value, gradient, decay):
    importance = torch.tensor([previous], dtype=torch.float64)
    mask, slope = (torch.tensor([number], dtype=torch.float64) for number in (value, gradient))
    update_importance(importance, [(slice(None), "taylor")], mask, slope, decay)
    assert float(importance) == pytest.approx(naive.taylor(previous, value, gradient, decay), rel=1e-9, abs=1e-12)


def test_snip_and_fisher_and_index():
    mask, gradient = torch.tensor([0.5, 1.0]), torch.tensor([-2.0, 3.0])
    for kind, expected in {"snip": [5.5, 6.0], "fisher": [6.25, 7.5], "index": [7.0, 7.0]}.items():
        importance = torch.tensor([7.0, 7.0])
        update_importance(importance, [(slice(None), kind)], mask, gradient, 0.75)
        assert importance.tolist() == expected


def test_equal_importance_is_ordered_by_position():
    positions = ascending_positions(torch.zeros(5), torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 3]))
    assert positions.tolist() == [0, 1, 2, 0, 1]


def test_the_masks_gradient_vanishes_far_from_the_threshold():
    """Around the threshold it is the definition's; all of it is what a unit's size loses per ratio, N."""
    ratio = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    gradients = torch.autograd.functional.jacobian(
        lambda a: soft_mask(ranks(100), a.expand(100), torch.full((100,), 100.0, dtype=torch.float64)), ratio
    )
    assert gradients.tolist() == pytest.approx(naive.mask_gradient([float(i) for i in range(100)], 0.5, 100), abs=1e-5)
    assert int((gradients.abs() > 1).sum()) < 12
    assert math.isclose(-float(gradients.sum()), 100, rel_tol=1e-3)
