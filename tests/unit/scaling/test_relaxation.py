"""The relaxations of table 2 on a small space: sizes, first masks, gradients written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dms_bench.scaling import find_space
from dms_bench.scaling.structure.gumbel import CountChoice, ElementGates
from dms_bench.scaling.structure.relaxation import StraightThroughTopK, TopK

SPACE = find_space(
    nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)), torch.randn(1, 4)
)


def test_structural_parameters_of_resnet50_are_table_2s():
    import timm

    space = find_space(timm.create_model("resnet50"), torch.randn(1, 3, 64, 64))
    # MES is counted per element: of its two logits only the difference matters.
    assert ElementGates(space, seed=0).logits.shape == (11468, 2)
    assert CountChoice(space, seed=0).logits.numel() == 11468
    assert StraightThroughTopK(space).ratios.numel() == 41


def test_get_estimates_the_masks_gradient_by_minus_one_and_keeps_one():
    relaxation = StraightThroughTopK(SPACE)
    relaxation.importance.copy_(torch.arange(1.0, 12))
    with torch.no_grad():
        relaxation.ratios.copy_(torch.tensor([0.5, 0.99]))
    mask = relaxation.soft_mask()
    torch.testing.assert_close(mask.detach(), torch.tensor([0.0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1]))
    weights = torch.arange(11.0)
    (weights * mask).sum().backward()
    assert relaxation.ratios.grad.tolist() == [-15.0, -40.0]


@pytest.mark.parametrize("fair", [False, True])
def test_gates_carry_the_softmaxs_gradient(fair):
    relaxation = ElementGates(SPACE, seed=3, fair=fair)
    mask = relaxation.soft_mask()
    mask.sum().backward()
    score = (relaxation.logits + relaxation.noise).detach() / relaxation.temperature
    p = 1 / (1 + (score[:, 1] - score[:, 0]).exp())
    torch.testing.assert_close(relaxation.logits.grad[:, 0], p * (1 - p) / relaxation.temperature, rtol=1e-4, atol=1e-6)
    assert mask.detach().tolist() == pytest.approx((score[:, 0] > score[:, 1]).float().tolist(), abs=1e-6)  # binary


def test_a_choice_drops_the_leading_elements():
    relaxation = CountChoice(SPACE, seed=0)
    with torch.no_grad():
        relaxation.logits[2] = relaxation.logits[10] = 9.0
    assert relaxation.hard_mask().tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1]
    expected = torch.cat(
        [part.softmax(0) @ torch.ones(len(part), len(part)).triu() for part in relaxation.logits.split([6, 5])]
    )
    torch.testing.assert_close(relaxation.expected_mask(), expected)


@pytest.mark.parametrize("kind", [ElementGates, CountChoice])
def test_noise_depends_on_the_seed_and_resumes(kind):
    one, twin, other = kind(SPACE, seed=1), kind(SPACE, seed=1), kind(SPACE, seed=2)
    assert torch.equal(one.noise, twin.noise)
    assert not torch.equal(one.noise, other.noise)
    one.update(torch.ones(11), None)
    twin.load_state_dict(one.state_dict())
    one.update(torch.ones(11), None)
    twin.update(torch.ones(11), None)
    assert torch.equal(one.noise, twin.noise)


def test_the_noise_changes_with_every_step_and_depends_on_the_seed_alone():
    one, twin, other = (ElementGates(SPACE, seed=seed) for seed in (3, 3, 4))
    first = one.noise.clone()
    assert torch.equal(first, twin.noise)
    assert not torch.equal(first, other.noise)
    for relaxation in (one, twin):
        relaxation.update(torch.ones(11), None)
    assert torch.equal(one.noise, twin.noise)
    assert not torch.equal(first, one.noise)


def test_the_fair_variant_cools_and_the_released_one_is_cold():
    fair = CountChoice(SPACE, seed=0, fair=True)
    released = CountChoice(SPACE, seed=0, temperature=0.3)
    assert fair.temperature == pytest.approx(5.0)
    temperatures = []
    for progress in (0.0, 0.5, 1.0):
        fair.anneal(progress)
        released.anneal(progress)
        temperatures.append(fair.temperature)
        assert released.temperature == 0.3
    assert temperatures == pytest.approx([5.0, 0.5**0.5, 0.1])


def test_without_normalisation_masks_follow_the_raw_importance():
    """Raw Taylor scores are tiny, so that the mask of a unit is nearly constant and tells nothing apart (table 11)."""
    importance = 1e-6 * torch.rand(11, generator=torch.Generator().manual_seed(0))
    spreads = []
    for normalise in (False, True):
        relaxation = TopK(SPACE, normalise=normalise)
        relaxation.importance.copy_(importance)
        with torch.no_grad():
            relaxation.ratios.fill_(0.5)
            mask = relaxation.soft_mask()
        spreads.append(float(mask[:6].max() - mask[:6].min()))
        if not normalise:
            slope = torch.tensor([6.0] * 6 + [5.0] * 5)
            torch.testing.assert_close(mask, torch.sigmoid(slope * (importance - 0.5)))
    assert spreads[0] < 1e-4
    assert spreads[1] > 0.8
