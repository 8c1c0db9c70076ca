"""One search for several budgets: what it finds for each, when, and that it disturbs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench.methods.base import SearchContext
from dms_bench.methods.gradient.dms import DmsSearch
from dms_bench.methods.gradient.gates import RouterSearch
from dms_bench.methods.gradient.in_one import InOne, from_large_to_small
from dms_bench.methods.gradient.spec import Ddp, Dms, Router
from dms_bench.scaling import Architecture, Budget, Supernet, budget_of
from dms_bench.scaling.structure.router import Router as LevelRouter
from tests.unit.methods.test_methods import SEARCHES, STEPS, context

#: Of the MACs, in an order of no meaning.
SHARES = (0.3, 0.6, 0.1)
WRITTEN = [{"kind": "macs", "target": share} for share in SHARES]
FALLING = [kind for kind in SEARCHES if kind is not Router]


def budgets_of(given: SearchContext) -> list[Budget]:
    return [budget_of(given.space, macs=share) for share in SHARES]


def searched(spec: Any, given: SearchContext | None = None) -> list[tuple[int, Architecture, dict[str, Tensor]]]:
    given = given or context()
    found: list[tuple[int, Architecture, dict[str, Tensor]]] = []

    def keep(position: int, architecture: Architecture, model: nn.Module) -> None:
        found.append((position, architecture, {name: value.clone() for name, value in model.state_dict().items()}))

    SEARCHES[type(spec)](spec).search_in_one(given, budgets_of(given), keep)
    return found


@pytest.mark.parametrize("kind", list(SEARCHES))
def test_every_budget_gets_a_network_that_meets_it(kind: Any) -> None:
    given = context()
    found = searched(kind(budgets_in_one=WRITTEN), given)
    assert sorted(position for position, *_ in found) == [0, 1, 2]
    for position, architecture, _ in found:
        cost = given.space.cost_of(given.space.macs_model, given.space.mask(architecture)) / given.space.macs
        assert cost == pytest.approx(SHARES[position], rel=0.01)


@pytest.mark.parametrize("kind", FALLING)
def test_the_smallest_gets_what_a_search_for_it_alone_finds(kind: Any) -> None:
    """To pass a budget changes nothing of the search that goes on."""
    alone, together = context(share=min(SHARES)), context()
    architecture = SEARCHES[kind](kind()).search(alone)
    position, last, weights = searched(kind(), together)[-1]
    assert SHARES[position] == min(SHARES)
    assert last == architecture
    assert all(torch.equal(weights[name], value) for name, value in alone.model.state_dict().items())


def test_a_network_is_cut_in_the_step_that_comes_to_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    given, targets, cuts = context(), [], {}
    begin = InOne.begin_step

    def begin_step(self: InOne, progress: float) -> None:
        begin(self, progress)
        targets.append(self.budget.constraints[0].target / given.space.macs)

    monkeypatch.setattr(InOne, "begin_step", begin_step)
    DmsSearch(Dms()).search_in_one(given, budgets_of(given), lambda position, *_: cuts.update({position: len(targets)}))
    for position in (0, 1):
        at = cuts[position]
        assert targets[at - 1] <= SHARES[position] < targets[at - 2]
    assert cuts[1] < cuts[0] < cuts[2] == STEPS


def test_a_router_is_asked_for_every_budget_in_turn_and_answers_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    given, asked, cuts = context(), [], {}
    begin = InOne.begin_step

    def begin_step(self: InOne, progress: float) -> None:
        begin(self, progress)
        assert isinstance(self.router, LevelRouter)
        assert not self.supernet.depth_frozen
        asked.append((self.router.budget, self.final.constraints[0].target / given.space.macs))

    monkeypatch.setattr(InOne, "begin_step", begin_step)
    RouterSearch(Router(budgets_in_one=WRITTEN)).search_in_one(
        given, budgets_of(given), lambda position, *_: cuts.update({position: len(asked)})
    )
    assert [budget for budget, _ in asked] == [step % 3 for step in range(STEPS)]
    assert all(target == pytest.approx(sorted(SHARES, reverse=True)[budget]) for budget, target in asked)
    assert cuts == {0: STEPS, 1: STEPS, 2: STEPS}


def test_weights_that_a_method_changes_for_a_cut_are_given_back() -> None:
    """Deterministic gates are multiplied into the weights of each network, and not into those of the search."""
    given = context()
    start = [parameter.detach().clone() for parameter in given.model.parameters()]
    found = searched(Ddp(), replace(given, trial=context(pipeline="DMSp-").trial))
    assert all(any(not torch.equal(a, b) for a, b in zip(start, kept.values(), strict=True)) for *_, kept in found)
    assert all(torch.equal(a, b) for a, b in zip(start, given.model.parameters(), strict=True))


@pytest.mark.parametrize("spec", [Dms(), Ddp(), Router(budgets_in_one=WRITTEN)], ids=lambda spec: spec.kind)
def test_it_resumes_to_the_bit(spec: Any) -> None:
    def run(stop: int | None) -> tuple[list[tuple[int, list[int]]], list[Tensor]]:
        given = context()
        cuts: list[tuple[int, list[int]]] = []
        order = from_large_to_small(budgets_of(given))
        budgets = [budgets_of(given)[position] for position in order]

        def made() -> InOne:
            net = Supernet(given.model, given.space, SEARCHES[type(spec)](spec).relaxation(given))

            def keep(position: int) -> None:
                architecture = net.architecture(budgets[position])
                cuts.append((position, [len(elements) for elements in architecture.groups.values()]))

            return InOne(net, spec, budgets, keep, trains_weights=False)

        structure = made()
        generator = torch.Generator().manual_seed(1)
        for step in range(30):
            if step == stop:
                saved = structure.supernet.state_dict(), structure.state_dict()
                structure = made()
                structure.supernet.load_state_dict(saved[0])
                structure.load_state_dict(saved[1])
            x = torch.randn(16, 16, generator=generator)
            structure.begin_step(step / 30)
            (structure.supernet(x).square().mean() + structure.loss()).backward()
            structure.end_step()
        structure.finish()
        return cuts, [parameter.detach() for parameter in structure.supernet.structure_parameters()]

    undisturbed, resumed = run(None), run(17)
    assert undisturbed[0] == resumed[0]
    assert len({position for position, _ in resumed[0]}) == len(resumed[0]) == 3
    assert all(torch.equal(a, b) for a, b in zip(undisturbed[1], resumed[1], strict=True))


def test_budgets_that_have_no_order_are_refused() -> None:
    space = context().space
    make: Callable[..., Budget] = lambda macs, params: budget_of(space, macs=macs, params=params)  # noqa: E731
    ordered: Sequence[Budget] = [make(0.2, 0.3), make(0.5, 0.3), make(0.5, 0.9)]
    assert from_large_to_small(ordered) == [2, 1, 0]
    with pytest.raises(UserError, match="allows more of one resource and less of another"):
        from_large_to_small([make(0.2, 0.9), make(0.5, 0.3)])


def test_all_gradient_methods_have_it() -> None:
    assert all(kind(budgets_in_one=True).label() == f"{kind().label()}, budgets in one" for kind in SEARCHES)
