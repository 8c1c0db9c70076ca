"""Latency of whole networks: the arithmetic by hand, the fit on an engine that follows a known law."""

import json

import pytest
import torch
from torch import nn

from dms_bench.scaling import budget_of, count, find_space
from dms_bench.scaling.latency.whole import FITTED, HELD_OUT, Parts, WholeLatency, fitted, measure_whole

EXAMPLE = torch.randn(1, 8)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16))

    def forward(self, x):
        return x + self.inner(x)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), Residual(), Residual(), nn.Linear(16, 4)).eval()


@pytest.fixture(scope="module")
def space(network):
    return find_space(network, torch.randn(2, 8))


class Engine:
    """Takes 0.5 ms, 2 ms for as many products as the whole network has, and 0.3 ms for each block; at a pace.

    Attributes:
        paces: how many times as long everything takes, network by network.
    """

    def __init__(self, whole, paces):
        self.whole, self.paces = self.law(whole), iter(paces)

    def law(self, network):
        blocks = sum(isinstance(module, Residual) for module in network.modules())
        return 0.5 + 2 * count(network, EXAMPLE).macs / (8 * 16 + 4 * 16 * 24 + 16 * 4) + 0.3 * blocks

    def __call__(self, network):
        assert not network.training
        pace = next(self.paces)
        return pace * self.law(network), pace * self.whole


@pytest.mark.parametrize(
    "paces", [[1.0] * 40, [1.0, 1.0, 3.0, 1.0] * 10, [1 + row / 40 for row in range(40)]], ids=["calm", "busy", "drift"]
)
def test_a_known_law_is_found_whatever_else_the_machine_does(network, space, paces):
    model = measure_whole(network, space, Engine(network, paces))
    pace = model.whole_ms / 3.1  # what the supernet took, in the middle
    assert pace == pytest.approx(sorted(paces)[20], rel=0.05)
    assert space.cost_of(model, space.full()) == pytest.approx(3.1 * pace, rel=0.01)
    assert model.fidelity.r2 > 0.99
    assert model.fidelity.error < 0.01
    assert len(model.fidelity.measured) == HELD_OUT
    assert FITTED + HELD_OUT == 40
    thinner = space.full()
    thinner[:8] = 0
    assert space.cost_of(model, thinner) < 3.1 * pace


def test_a_model_is_the_sum_of_its_terms_for_any_number_of_choices_and_after_saving(space):
    parts = Parts(space)
    kept, blocks = space._group_sizes(), torch.tensor([1.0, 0.25])
    choices = torch.stack([kept, kept / 2])
    shares = parts(choices, blocks)
    macs = space.macs_model(choices, blocks) / space.macs
    kinds = torch.tensor(parts.kinds)
    assert shares[:, kinds == 0].sum(1).tolist() == pytest.approx(macs.tolist())
    assert shares[:, kinds == 2].tolist() == [[1.0, 0.25]] * 2
    assert shares[:, kinds == 3].tolist() == [[1.0]] * 2
    model = WholeLatency(space, [[2.0, 0.0, 0.3, 0.5][kind] for kind in parts.kinds], 3.0)
    assert model(choices, blocks).tolist() == pytest.approx((2 * macs + 0.3 * 1.25 + 0.5).tolist())
    again = WholeLatency.from_json(model.to_json(), space)
    assert (again.ms, again.whole_ms, again.fidelity) == (model.ms, 3.0, None)
    with pytest.raises(ValueError, match="terms, of which the space has"):
        WholeLatency.from_json(json.dumps({"ms": [1.0], "whole_ms": 1.0, "fidelity": None}), space)


def test_a_model_is_differentiable_in_widths_and_depth_and_may_bound_a_budget(space):
    model = WholeLatency(space, [1.0] * len(Parts(space).kinds), 4.0)
    kept = space._group_sizes().requires_grad_()
    blocks = torch.ones(2, requires_grad=True)
    model(kept, blocks).backward()
    assert (kept.grad > 0).all()
    assert (blocks.grad > 0).all()
    (bound,) = budget_of(space, latency=(model, 0.5)).constraints
    assert bound.target == pytest.approx(space.cost_of(model, space.full()) / 2)


def test_what_measurements_do_not_tell_apart_has_the_coefficient_of_its_kind():
    """Two terms of a kind that always go together, one of them three times as large, and one that tells."""
    first = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    shares = torch.stack([first, 3 * first, 1 - first], 1)
    found = fitted(shares, 8 * first + 5 * (1 - first), [0, 0, 1])
    assert found == pytest.approx([2, 2, 5], rel=1e-3)
    assert min(fitted(shares, 2 - first, [0, 0, 1])) >= 0
