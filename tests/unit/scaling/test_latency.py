"""Latency models: their arithmetic by hand, their fit on a clock that follows a known law."""

import json

import pytest
import torch
from torch import nn

from dms_bench.scaling import LatencyModel, budget_of, find_space, measure_latency
from dms_bench.scaling.example import Example
from dms_bench.scaling.latency import model as latency_model
from dms_bench.scaling.latency import timing
from dms_bench.scaling.latency.model import Fidelity, LatencyTerm, Segment, _fitted

CPU = torch.device("cpu")


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
    found = find_space(network, torch.randn(2, 8))
    assert found.stages
    return found


def by_hand(kept, blocks):
    """1 + 2 r0 + (3 r0 r1 + 0.5 r1^2) m0, sizes 10 and 4."""
    r0, r1 = kept[0] / 10, kept[1] / 4
    return 1 + 2 * r0 + (3 * r0 * r1 + 0.5 * r1 * r1) * blocks[0]


TERMS = [LatencyTerm(1), LatencyTerm(2, (-1, 0)), LatencyTerm(3, (0, 1), 0), LatencyTerm(0.5, (1, 1), 0)]


def test_a_model_is_the_sum_of_its_terms_for_any_number_of_choices_and_after_saving():
    model = LatencyModel(TERMS, torch.tensor([10.0, 4.0]), Fidelity(0.5, 0.1, (1.0,), (2.0,)))
    kept, blocks = torch.tensor([[10.0, 4.0], [5.0, 1.0], [2.5, 3.0]]), torch.tensor([0.25])
    expected = [by_hand(row.tolist(), [0.25]) for row in kept]
    assert model(kept, blocks).tolist() == pytest.approx(expected)
    again = LatencyModel.from_json(model.to_json())
    assert again(kept[1], blocks).item() == pytest.approx(expected[1])
    assert again.fidelity == model.fidelity
    assert json.loads(model.to_json())["fidelity"]["r2"] == 0.5


def test_a_model_is_differentiable_in_widths_and_depth():
    model = LatencyModel(TERMS, torch.tensor([10.0, 4.0]))
    kept, blocks = torch.tensor([5.0, 2.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    model(kept, blocks).backward()
    assert kept.grad.tolist() == pytest.approx([0.2 + 3 * 0.1 * 0.5, 3 * 0.5 * 0.25 + 2 * 0.5 * 0.5 * 0.25])
    assert blocks.grad.tolist() == pytest.approx([3 * 0.25 + 0.5 * 0.25])


def test_the_fit_finds_a_known_law_and_uses_only_networks_that_keep_the_block():
    generator = torch.Generator().manual_seed(0)
    ratios = torch.rand(30, 2, generator=generator, dtype=torch.float64)
    stays = (torch.rand(30, 1, generator=generator) > 0.3).double()
    ms = [
        by_hand([10 * r0, 4 * r1], [1]) if stay else 1e-3 for (r0, r1), stay in zip(ratios.tolist(), stays, strict=True)
    ]
    model = LatencyModel(_fitted(Segment("x", (0, 1), 0), ratios, stays, ms), torch.tensor([10.0, 4.0]))
    assert model(torch.tensor([7.0, 2.0]), torch.ones(1)).item() == pytest.approx(by_hand([7, 2], [1]), rel=1e-6)
    assert model(torch.tensor([7.0, 2.0]), torch.zeros(1)).item() == 0
    assert all(term.ms > 0 for term in model.terms)


def test_nothing_is_predicted_to_become_faster_by_keeping_more():
    """Of a law that falls with the width, the fit has the constant that is nearest by relative errors."""
    ratios = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    ms = (2 - ratios).tolist()
    (term,) = _fitted(Segment("x", (0,)), ratios[:, None], torch.ones(10, 0), ms)
    assert (term.groups, term.block) == ((-1, -1), -1)
    assert term.ms == pytest.approx(sum(1 / time for time in ms) / sum(1 / time**2 for time in ms))


def test_fidelity_by_hand():
    found = Fidelity.of([2.2, 2.0, 6.0], [2.0, 2.5, 4.0])
    assert found.error == pytest.approx(0.2)  # of 0.1, 0.2 and 0.5
    mean = 8.5 / 3
    variance = (2 - mean) ** 2 + (2.5 - mean) ** 2 + (4 - mean) ** 2
    assert found.r2 == pytest.approx(1 - (0.2**2 + 0.5**2 + 2**2) / variance)


def test_blocks_are_segments_and_every_contraction_lies_in_one(network, space):
    found = {segment.name: segment for segment in timing.segments_of(network, space, Example(torch.randn(1, 8)))}
    blocks = space.blocks
    assert [found[name].block for name in blocks] == list(range(len(blocks)))
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            holders = [segment for segment in found if name == segment or name.startswith(segment + ".")]
            assert len(holders) == 1, name


class Clock:
    """Advances as the layers of a network run: by a millisecond for every 64 products, and what disturbs the machine.

    Attributes:
        slower: how many times as long the layer takes that is called as the n-th.
    """

    def __init__(self):
        self.seconds, self.calls = 0.0, 0
        self.slower = lambda call: 1.0

    def linear(self, x, weight, bias=None):
        self.calls += 1
        self.seconds += 1e-3 * weight.numel() / 64 * self.slower(self.calls)
        return x @ weight.T + bias


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: clock.linear(x, self.weight, self.bias))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.seconds)
    return clock


def test_a_measured_model_predicts_the_networks_it_has_not_seen(network, space, clock):
    model = measure_latency(network, space, torch.randn(1, 8), CPU)
    products = sum(module.weight.numel() for module in network.modules() if isinstance(module, nn.Linear))
    assert space.cost_of(model, space.full()) == pytest.approx(products / 64, rel=1e-3)
    assert model.fidelity.r2 > 0.999
    assert model.fidelity.error < 1e-3
    assert len(model.fidelity.measured) == 10


@pytest.mark.parametrize(
    "slower",
    [lambda call: 20.0 if call % 11 == 0 else 1.0, lambda call: 3.0 if 300 <= call < 900 else 1.0],
    ids=["now and then", "for a while"],
)
def test_what_else_the_machine_does_is_not_taken_for_the_networks_latency(network, space, clock, slower):
    clock.slower = slower
    model = measure_latency(network, space, torch.randn(1, 8), CPU)
    assert model.fidelity.r2 > 0.999
    assert model.fidelity.error < 1e-3


def test_the_first_pass_is_not_counted(network, clock):
    layers = sum(isinstance(module, nn.Linear) for module in network.modules())
    clock.slower = lambda call: 100.0 if call <= layers else 1.0
    spent = timing.SegmentTimer(network, ["0"], CPU).run(Example(torch.randn(1, 8)), 3)
    assert spent["0"] == pytest.approx([8 * 16 / 64] * 3)
    assert spent[timing.REST] == pytest.approx([(4 * 16 * 24 + 16 * 4) / 64] * 3)


def test_fidelity_is_that_of_networks_which_the_fit_has_not_seen(network, space, clock, monkeypatch):
    fitted = []

    def spy(segment, ratios, stays, ms):
        fitted.append((ratios, list(ms)))
        return _fitted(segment, ratios, stays, ms)

    monkeypatch.setattr(latency_model, "_fitted", spy)
    model = measure_latency(network, space, torch.randn(1, 8), CPU)
    totals = [sum(times) for times in zip(*(ms for _, ms in fitted), strict=True)]
    assert {len(ratios) for ratios, _ in fitted} == {40}
    assert len(totals) == 50
    assert list(model.fidelity.measured) == pytest.approx(totals[40:])
    assert list(model.fidelity.measured) != pytest.approx(totals[:10])


def test_a_budget_takes_any_cost_with_its_target(space):
    model = LatencyModel([LatencyTerm(5.0)], torch.tensor([float(group.size) for group in space.groups]))
    budget = budget_of(space, macs=0.5, latency=(model, 0.6))
    assert [(bound.name, bound.target) for bound in budget.constraints] == [("macs", space.macs / 2), ("latency", 3.0)]
    assert budget_of(space, latency=(model, 4.0)).constraints[0].target == 4.0
