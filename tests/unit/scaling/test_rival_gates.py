"""Gates of methods since DMS, against their formulas written out, finite differences and scipy."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from torch import nn

from dms_bench.scaling import Supernet, budget_of, cut, find_space
from dms_bench.scaling.lagrangian import Lagrangian
from dms_bench.scaling.structure.hard_concrete import HardConcrete
from dms_bench.scaling.structure.lapsum import LapSum, SoftTopK
from dms_bench.scaling.structure.retention import RetentionGates
from dms_bench.scaling.structure.router import Router, levels_of

CHAIN = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
SPACE = find_space(CHAIN, torch.randn(1, 4))


def exactly(scores: np.ndarray, k: float, alpha: float) -> np.ndarray:
    """The masks of one unit: scipy's Laplace distribution, and its root finder for the threshold."""

    def total(b: float) -> float:
        return float(stats.laplace.cdf((scores - b) / alpha).sum()) - k

    b = optimize.brentq(total, scores.min() - 40 * alpha, scores.max() + 40 * alpha, xtol=1e-14)
    return stats.laplace.cdf((scores - b) / alpha)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    seed=st.integers(0, 10**6),
    alpha=st.sampled_from([0.001, 0.01, 0.1, 1.0, 5.0]),
)
def test_soft_top_k_is_the_definition_and_sums_to_k(sizes, seed, alpha):
    generator = np.random.default_rng(seed)
    scores = [generator.normal(size=size) for size in sizes]
    number = [generator.uniform(0.02, 0.98) * size for size in sizes]
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    mask = SoftTopK.apply(torch.tensor(np.concatenate(scores)), torch.tensor(number, dtype=torch.double), owner, alpha)
    for unit, part in enumerate(mask.split(sizes)):
        assert float(part.sum()) == pytest.approx(number[unit], rel=1e-9)
        np.testing.assert_allclose(part.numpy(), exactly(scores[unit], number[unit], alpha), atol=1e-8)
        order = torch.tensor(scores[unit]).argsort()
        assert bool((part[order].diff() >= -1e-12).all())  # a higher score, a larger mask


def test_soft_top_ks_gradients_are_finite_differences():
    owner = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    scores = torch.randn(7, dtype=torch.double, generator=torch.Generator().manual_seed(0)).requires_grad_()
    number = torch.tensor([1.7, 1.2, 0.3], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r, k: SoftTopK.apply(r, k, owner, 0.7), (scores, number), eps=1e-6)


def test_scores_that_have_run_far_apart_still_sum_to_k():
    owner = torch.zeros(50, dtype=torch.long)
    scores = (1000 * torch.randn(50, generator=torch.Generator().manual_seed(0))).requires_grad_()
    mask = SoftTopK.apply(scores, torch.tensor([17.0]), owner, 1e-3)
    assert float(mask.detach().sum()) == pytest.approx(17, abs=1e-4)
    mask.sum().backward()
    assert bool(scores.grad.isfinite().all())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_nothing_has_finite_gradients(share):
    owner = torch.zeros(5, dtype=torch.long)
    scores, number = torch.randn(5, requires_grad=True), torch.tensor([5 * share], requires_grad=True)
    mask = SoftTopK.apply(scores, number, owner, 0.1)
    torch.testing.assert_close(mask.detach(), torch.full((5,), share), atol=1e-6, rtol=0)
    (mask * torch.arange(5.0)).sum().backward()
    assert bool(scores.grad.isfinite().all())
    assert 0 <= float(number.grad) <= 4  # of a mean with weights that sum to 1


def test_lapsum_keeps_the_highest_scores_and_pays_for_what_it_keeps():
    relaxation = LapSum(SPACE, alpha=0.2)
    with torch.no_grad():
        relaxation.structure[:2] = torch.tensor([0.5, 0.4])
        relaxation.scores.copy_(torch.tensor([3.0, 1, 2, 6, 5, 4, 1, 2, 3, 4, 5]))
    assert relaxation.hard_mask().tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1]
    kept, _ = relaxation.soft_size()
    assert kept.tolist() == pytest.approx([3, 3])
    sums = torch.stack([part.sum() for part in relaxation.soft_mask().split([6, 5])])
    torch.testing.assert_close(sums, kept)
    counts, importance = relaxation.proposal()
    assert counts.tolist() == pytest.approx([3, 3])
    assert importance.tolist() == relaxation.scores.tolist()
    relaxation.observing = True
    assert relaxation.soft_mask().tolist() == [1] * 11


def test_hard_concrete_is_louizos_formula():
    relaxation = HardConcrete(SPACE, seed=0)
    with torch.no_grad():
        relaxation.logits.copy_(torch.linspace(-4, 4, 11))
    u = torch.sigmoid(relaxation.noise.double()).numpy()
    log_alpha = np.linspace(-4, 4, 11)
    s = 1 / (1 + np.exp(-(np.log(u) - np.log(1 - u) + log_alpha) / (2 / 3)))
    expected = np.minimum(1, np.maximum(0, s * (1.1 + 0.1) - 0.1))
    np.testing.assert_allclose(relaxation.soft_mask().detach().numpy(), expected, atol=1e-5)


def test_hard_concrete_gates_are_above_zero_as_often_as_expected():
    relaxation = HardConcrete(SPACE, seed=1)
    with torch.no_grad():
        relaxation.logits.copy_(torch.linspace(-3, 3, 11))
        draws, above = 4000, torch.zeros(11)
        for _ in range(draws):
            above += (relaxation.soft_mask() > 0).float()
            relaxation.update(torch.ones(11), None)
        expected = relaxation.expected_mask()
    error = (above / draws - expected).abs()
    assert bool((error < 4.5 * (expected * (1 - expected) / draws).sqrt()).all()), error


def test_hard_concrete_starts_nearly_whole_with_noise_of_its_own_seed():
    relaxation, twin, other = HardConcrete(SPACE, seed=1), HardConcrete(SPACE, seed=1), HardConcrete(SPACE, seed=2)
    assert relaxation.expected_mask().tolist() == pytest.approx([0.95] * 11)
    assert torch.equal(relaxation.noise, twin.noise)
    assert not torch.equal(relaxation.noise, other.noise)
    before = relaxation.noise.clone()
    relaxation.update(torch.ones(11), None)
    assert not torch.equal(before, relaxation.noise)
    twin.load_state_dict(relaxation.state_dict())
    assert torch.equal(relaxation.noise, twin.noise)


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_retention_is_the_papers_score(progress):
    relaxation = RetentionGates(CHAIN, SPACE)
    z = np.linspace(-0.3, 1.6, 11)
    with torch.no_grad():
        relaxation.gates.copy_(torch.tensor(z))
    relaxation.anneal(progress)
    mu = 0.5 - 0.4 * math.sqrt(progress)
    relu = np.maximum(z, 0)
    v = 1 / (1 + np.exp(-(relu - mu) * 2.4 / mu))
    scores = np.clip(v * 1.2 - 0.1, 0, 1)
    np.testing.assert_allclose(relaxation.retention().detach().numpy(), scores, atol=1e-5)
    np.testing.assert_allclose(relaxation.soft_mask().detach().numpy(), relu, atol=1e-6)
    np.testing.assert_allclose(float(relaxation.indecision().detach()), (scores * (1 - scores)).mean(), atol=1e-5)
    assert relaxation.hard_mask().tolist() == [float(value >= mu) for value in z]
    relaxation.soft_mask().sum().backward()
    assert relaxation.gates.grad.tolist() == [1] * 11  # straight through


def test_retention_scores_have_the_sigmoids_gradient_where_they_are_clamped():
    relaxation = RetentionGates(CHAIN, SPACE)
    with torch.no_grad():
        relaxation.gates.fill_(1.2)
    relaxation.retention().sum().backward()
    v = 1 / (1 + math.exp(-2.4 * (1.2 - 0.5) / 0.5))
    assert relaxation.gates.grad.tolist() == pytest.approx([1.2 * v * (1 - v) * 2.4 / 0.5] * 11, rel=1e-3)


NETWORKS = {
    "chain": lambda: (copy.deepcopy(CHAIN), torch.randn(5, 4)),
    "resnet": lambda: (
        timm.create_model("resnet18", channels=(8, 8, 16, 16), num_classes=5),
        torch.randn(2, 3, 32, 32),
    ),
    "efficientnet": lambda: (timm.create_model("test_efficientnet", num_classes=5), torch.randn(2, 3, 64, 64)),
    "vit": lambda: (timm.create_model("test_vit", num_classes=5, img_size=64), torch.randn(2, 3, 64, 64)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_gates_compute_what_the_supernet_did(name):
    """The cut network is the supernet under the gates of what stays, zero elsewhere; with gates far above 1, too."""
    torch.manual_seed(0)
    model, x = NETWORKS[name]()
    model, x = model.double().eval(), x.double()
    space = find_space(model, x)
    relaxation = RetentionGates(model, space).double()
    foldable = relaxation._foldable
    assert bool(foldable.any())
    generator = torch.Generator().manual_seed(1)
    kept = torch.rand(space.units.total, generator=generator) < 0.6
    for start, size in zip(space.units.starts, space.units.sizes, strict=True):
        kept[start] = True
        kept[start + size - 1] = True
    with torch.no_grad():
        gates = torch.where(foldable, 0.2 + 3 * torch.rand(len(kept), generator=generator), 1.0)
        relaxation.gates.copy_(gates)
    net = Supernet(model, space, relaxation)
    with torch.no_grad(), net.fixed(relaxation.soft_mask() * kept):
        expected = net(x)
    relaxation.fold(model, space, kept.float())
    network = cut(model, space, space.architecture(kept.float())).double().eval()
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)


def test_gates_that_norms_see_end_at_one():
    model, x = NETWORKS["vit"]()
    space = find_space(model.eval(), x)
    relaxation = RetentionGates(model, space)
    with torch.no_grad():
        relaxation.gates.fill_(2.0)
    mask = relaxation.soft_mask()
    stream = torch.cat([norm.elements.flatten() for norm in space.norms])
    assert bool((mask[stream[stream >= 0]] == 1).all())
    assert bool((mask[space.width_elements :] == 1).all())
    assert bool((mask[relaxation._foldable] == 2).all())


def test_multipliers_are_ascended_until_the_target_is_met():
    """A cost of 1 + x against a target of 1, with a loss that wants x large: the multipliers win."""
    budget = budget_of(SPACE, macs=0.5)
    (bound,) = budget.constraints
    lagrangian = Lagrangian(1, torch.device("cpu"))
    relaxation = HardConcrete(SPACE, seed=0)
    optimizer = torch.optim.Adam(relaxation.parameters(), lr=0.05)
    for step in range(400):
        lagrangian.begin_step(step / 400)
        loss = -0.1 * relaxation.expected_mask().mean() + lagrangian.loss(budget, relaxation.soft_size())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        lagrangian.step()
    assert float(bound.cost(*relaxation.soft_size()).detach()) == pytest.approx(bound.target, rel=0.03)


def test_the_lagrangian_is_its_formula():
    budget = budget_of(SPACE, macs=0.5, params=0.25)
    lagrangian = Lagrangian(2, torch.device("cpu"))
    with torch.no_grad():
        lagrangian.linear.copy_(torch.tensor([2.0, 3.0]))
        lagrangian.square.copy_(torch.tensor([5.0, 7.0]))
        lagrangian.decision.fill_(11.0)
    whole = (torch.tensor([6.0, 5.0]), torch.ones(0))
    loss = float(lagrangian.loss(budget, whole, torch.tensor(0.1)).detach())
    assert loss == pytest.approx(2 * 0.5 + 5 * 0.25 + 3 * 0.75 + 7 * 0.75**2 + 1.1, rel=1e-5)
    twin = Lagrangian(2, torch.device("cpu"))
    for one in (lagrangian, twin):
        one.begin_step(0.1)
        one.loss(budget, whole).backward()
        one.step()
        if one is lagrangian:
            twin.load_state_dict(lagrangian.state_dict())
            twin.zero_grad()
    assert bool((lagrangian.linear > torch.tensor([2.0, 3.0])).all())  # they rise where the cost is above


@pytest.mark.parametrize("steps", [50, 1000])
def test_multipliers_rise_as_far_in_a_short_search_as_in_a_long_one(steps):
    budget = budget_of(SPACE, macs=0.5)
    lagrangian = Lagrangian(1, torch.device("cpu"))
    whole = (torch.tensor([6.0, 5.0]), torch.ones(0))
    for step in range(steps):
        lagrangian.begin_step(step / steps)
        lagrangian.loss(budget, whole).backward()
        lagrangian.step()
    assert lagrangian.linear.tolist() == pytest.approx([2e-2 * 1000], rel=0.03)  # Adam's steps are its rate
    assert lagrangian.square.tolist() == pytest.approx([4e-1 * 1000], rel=0.03)


def test_a_routers_masks_are_its_levels_weighed_by_their_probabilities():
    """Written out unit by unit: the softmax, and for each level the mask of its highest elements."""
    relaxation = Router(SPACE, seed=3, levels=4, budgets=2)
    relaxation.budget = 1
    relaxation.anneal(0.5)
    generator = torch.Generator().manual_seed(0)
    relaxation.importance.copy_(torch.rand(11, generator=generator))
    with torch.no_grad():
        relaxation.bias.copy_(torch.randn(relaxation.bias.shape, generator=generator))
        relaxation.second.copy_(torch.randn(relaxation.second.shape, generator=generator) * 0.1)
    hidden = relaxation.first[:, 1].detach()
    hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
    logits = relaxation.second.detach() @ hidden + relaxation.bias.detach()
    unit, number = levels_of(SPACE.units, 2, 4)
    assert [part.tolist() for part in (unit, number)] == [[0] * 4 + [1] * 4, [1, 3, 4, 6, 1, 2, 4, 5]]
    for noise, masks in ((relaxation.noise, relaxation.soft_mask()), (torch.zeros(8), None)):
        expected, sizes = torch.zeros(11), []
        for index, (start, size) in enumerate(zip((0, 6), (6, 5), strict=True)):
            mine = unit == index
            probabilities = torch.softmax((logits + noise)[mine] / math.sqrt(0.05), 0)
            order = relaxation.importance[start : start + size].argsort(descending=True)
            for probability, count in zip(probabilities, number[mine], strict=True):
                expected[start + order[:count]] += probability
            sizes.append(float((probabilities * number[mine]).sum()))
        if masks is not None:
            torch.testing.assert_close(masks.detach(), expected, atol=1e-6, rtol=1e-5)
        else:
            assert relaxation.soft_size()[0].tolist() == pytest.approx(sizes, rel=1e-5)
    hard = relaxation.hard_mask()
    for index, part in enumerate(hard.split([6, 5])):
        mine = unit == index
        count = int(number[mine][logits[mine].argmax()])
        assert int(part.sum()) == count
        importance = relaxation.importance.split([6, 5])[index]
        assert set(part.nonzero().flatten().tolist()) == set(importance.topk(count).indices.tolist())


def test_a_router_starts_whole_and_orders_by_what_it_has_observed():
    relaxation = Router(SPACE, seed=0)
    assert relaxation.hard_mask().tolist() == [1] * 11
    kept, _ = relaxation.soft_size()
    assert bool((kept > 0.9 * torch.tensor([6.0, 5.0])).all())
    relaxation.observing = True
    assert relaxation.soft_mask().tolist() == [1] * 11
    gradient = torch.arange(1.0, 12)
    relaxation.update(torch.ones(11), gradient)
    observed = relaxation.importance.clone()
    assert observed.argsort().tolist() == list(range(11))
    relaxation.observing = False
    relaxation.update(torch.ones(11), 100 / gradient)
    assert torch.equal(relaxation.importance, observed), "the order is fixed from then on"
