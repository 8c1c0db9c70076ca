"""A structure that is held at its budget: the cost is the target, and gradients run along what costs the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dms_bench.scaling import Supernet, budget_of, find_space
from dms_bench.scaling.budget import Budget
from dms_bench.scaling.projection import Projection, tangent
from dms_bench.scaling.structure.gumbel import CountChoice, ElementGates
from dms_bench.scaling.structure.hard_concrete import HardConcrete
from dms_bench.scaling.structure.lapsum import LapSum
from dms_bench.scaling.structure.relaxation import Relaxation, StraightThroughTopK, TopK
from dms_bench.scaling.structure.retention import RetentionGates
from dms_bench.scaling.structure.sampled import Sampled


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.up(x).relu())


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), *(Block(12) for _ in range(4)), nn.ReLU(), nn.Linear(12, 3))


SPACE = find_space(network(), torch.randn(2, 6))
BUDGETS = [{"macs": 0.3}, {"params": 0.4}, {"macs": 0.5, "params": 0.3}, {"latency": (SPACE.macs_model, 0.35)}]


def relaxation_of(kind: str, seed: int = 0) -> Relaxation:
    """Return a relaxation with random importance and sizes somewhere in the middle."""
    generator = torch.Generator().manual_seed(seed)
    if kind in ("dms", "get"):
        topk = (TopK if kind == "dms" else StraightThroughTopK)(SPACE).double()
        topk.importance.copy_(torch.rand(SPACE.units.total, generator=generator))
        with torch.no_grad():
            topk.ratios.copy_(topk.bounded(torch.rand(len(SPACE.names), generator=generator).double()))
        return topk
    if kind == "lapsum":
        lapsum = LapSum(SPACE).double()
        with torch.no_grad():
            start = torch.rand(lapsum.structure.shape, generator=generator).double()
            lapsum.structure.copy_(lapsum.bounded(start))
        return lapsum
    if kind == "ddp":
        gates = RetentionGates(network(), SPACE).double()
        with torch.no_grad():
            gates.gates.copy_(torch.rand(SPACE.units.total, generator=generator))
        return gates
    if kind == "l0":
        concrete = HardConcrete(SPACE, seed=seed).double()
        with torch.no_grad():
            concrete.logits.add_(torch.randn(concrete.logits.shape, generator=generator))
        return concrete
    gumbel = (ElementGates if kind == "mes" else CountChoice)(SPACE, seed=seed, fair=True).double()
    with torch.no_grad():
        gumbel.logits.add_(torch.randn(gumbel.logits.shape, generator=generator))
    return gumbel


def usage(budget: Budget, relaxation: Relaxation) -> float:
    return float(budget.usage(*relaxation.soft_size()).detach())


@pytest.mark.parametrize("targets", BUDGETS, ids=lambda targets: "+".join(targets))
@pytest.mark.parametrize("kind", ["dms", "get", "mes", "sns", "l0", "ddp", "lapsum"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_cost_is_the_target_from_wherever_it_starts(kind: str, targets: dict[str, Any], seed: int) -> None:
    relaxation, budget = relaxation_of(kind, seed), budget_of(SPACE, **targets)
    Projection(relaxation, relaxation.soft_size).meet(budget).remove()
    assert usage(budget, relaxation) == pytest.approx(1, abs=2e-3 if kind == "get" else 1e-4)


@pytest.mark.parametrize("kind", ["dms", "mes", "sns", "l0", "lapsum"])
def test_gradients_are_those_through_the_shift_by_finite_differences(kind: str) -> None:
    """d/dp of L(p + s(p) d), where s(p) holds the budget."""
    budget = budget_of(SPACE, macs=0.4)
    relaxation = relaxation_of(kind, seed=3)
    projection = Projection(relaxation, relaxation.soft_size)
    handle = projection.meet(budget)
    parameter = projection.parameter
    weights = torch.randn(SPACE.units.total, generator=torch.Generator().manual_seed(1)).double()

    def loss() -> torch.Tensor:
        mask = relaxation.expected_mask() if isinstance(relaxation, Sampled) else relaxation.soft_mask()
        return (weights * mask).sum()

    loss().backward()
    handle.remove()
    assert parameter.grad is not None
    begin, eps = parameter.detach().clone(), 1e-4
    for place in torch.randperm(begin.numel(), generator=torch.Generator().manual_seed(2))[:6].tolist():
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.copy_(begin).view(-1)[place] += sign * eps
            # The target to more digits than a search needs.
            _exactly(projection, budget)
            values.append(float(loss().detach()))
        slope = (values[0] - values[1]) / (2 * eps)
        assert float(parameter.grad.view(-1)[place]) == pytest.approx(slope, rel=1e-3, abs=1e-5)


def _exactly(projection: Projection, budget: Budget) -> None:
    begin, direction = projection.parameter.detach().clone(), projection.relaxation.shrinking()
    low, high = -0.1, 0.1
    for _ in range(60):
        middle = (low + high) / 2
        with torch.no_grad():
            projection.parameter.copy_(begin + middle * direction)
        low, high = (middle, high) if usage(budget, projection.relaxation) > 1 else (low, middle)


def test_a_step_along_the_tangent_costs_nothing_to_first_order() -> None:
    relaxation = relaxation_of("dms", seed=5)
    budget = budget_of(SPACE, params=0.4)
    projection = Projection(relaxation, relaxation.soft_size)
    projection.meet(budget).remove()
    (cost,) = torch.autograd.grad(budget.usage(*relaxation.soft_size()), relaxation.ratios)
    gradient = torch.randn_like(cost)
    along = tangent(gradient, cost=cost, direction=relaxation.shrinking())
    assert float(along.sum()) == pytest.approx(0, abs=1e-12), "a shift of all units alike does nothing"
    assert float(gradient.sum()) != pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("share", [1e-4, 5.0])
def test_out_of_reach_is_as_near_as_it_comes(share: float) -> None:
    relaxation = relaxation_of("dms")
    budget = budget_of(SPACE, macs=share * SPACE.macs if share * SPACE.macs > 1 else share)
    Projection(relaxation, relaxation.soft_size).meet(budget).remove()
    bound = SPACE.units.upper_ratio() if share < 1 else SPACE.units.lower_ratio()
    torch.testing.assert_close(relaxation.ratios.detach(), bound.double())


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        *(("dms", targets) for targets in BUDGETS),
        *((kind, BUDGETS[2]) for kind in ("get", "mes", "sns", "l0", "ddp", "lapsum")),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_a_whole_search_pays_for_its_falling_target_at_every_step(kind: str, targets: dict[str, Any]) -> None:
    """At a learning rate far too large, across the freeze of the depth, whose blocks the cut keeps."""
    model = network()
    space = find_space(model, torch.randn(2, 6))
    relaxation: Any = {
        "dms": lambda: None,
        "get": lambda: StraightThroughTopK(space),
        "mes": lambda: ElementGates(space, seed=0, fair=True),
        "sns": lambda: CountChoice(space, seed=0, fair=True),
        "l0": lambda: HardConcrete(space, seed=0),
        "ddp": lambda: RetentionGates(model, space),
        "lapsum": lambda: LapSum(space),
    }[kind]()
    supernet = Supernet(model, space, relaxation)
    budget = budget_of(space, **targets)
    weights = torch.optim.SGD(model.parameters(), lr=0.01)
    structure = torch.optim.Adam(supernet.structure_parameters(), lr=0.1)
    generator, steps, targets_met = torch.Generator().manual_seed(0), 30, []
    for step in range(steps):
        x = torch.randn(8, 6, generator=generator)
        falling = supernet.begin_step(step / steps, budget, projected=True)
        with torch.no_grad():
            share = float(falling.usage(*supernet.soft_size()))
        if step >= 0.2 * steps:  # before that nothing is decided, and the target is the whole
            assert share == pytest.approx(1, abs=0.01), step
        targets_met.append(falling.constraints[0].target)
        supernet(x).square().mean().backward()
        for optimizer in (weights, structure):
            optimizer.step()
            optimizer.zero_grad()
        supernet.update()
    assert targets_met == sorted(targets_met, reverse=True)
    assert targets_met[-1] == pytest.approx(budget.constraints[0].target)
    assert supernet.depth_frozen
    mask = space.mask(supernet.architecture(budget))
    met = budget.usage(space.kept_elements(mask)[: len(space.groups)], mask[space.width_elements :])
    assert float(met) == pytest.approx(1, abs=0.01)
    assert torch.equal(mask[space.width_elements :], supernet.relaxation.depth), "the depth that was decided"


def test_a_step_that_is_not_projected_leaves_gradients_as_they_are() -> None:
    model = network()
    supernet = Supernet(model, SPACE)
    budget = budget_of(SPACE, macs=0.3)
    for projected, free in ((True, False), (False, True)):
        supernet.begin_step(0.5, budget, projected=projected)
        supernet.importance.copy_(torch.rand(SPACE.units.total))
        supernet.relaxation.refresh()
        (ratios,) = supernet.structure_parameters()
        ratios.grad = None
        supernet.soft_mask().sum().backward()
        assert ratios.grad is not None
        assert (abs(float(ratios.grad.sum())) > 1) is free
