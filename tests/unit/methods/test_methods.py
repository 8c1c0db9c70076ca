"""The built-in methods on a small network: budget, seeds, and what each promises."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from dms_bench.config.recipe import Recipe
from dms_bench.methods.base import SearchContext
from dms_bench.methods.controls.random import RandomArchitecture
from dms_bench.methods.controls.spec import Random, Uniform, WholeSupernet
from dms_bench.methods.controls.uniform import UniformSearch
from dms_bench.methods.controls.whole import KeepSupernet
from dms_bench.methods.gradient.dms import DmsSearch
from dms_bench.methods.gradient.gates import DdpSearch, L0Search, LapSumSearch, RouterSearch
from dms_bench.methods.gradient.relaxed import GetSearch, MesSearch, SnsSearch
from dms_bench.methods.gradient.spec import L0, Ddp, Dms, Get, LapSum, Mes, Router, Sns
from dms_bench.methods.gradient.structure import DmsStructure
from dms_bench.scaling import Architecture, Supernet, budget_of, find_space

STEPS = 60
#: All of them can be projected but the router, whose choices hang together.
SEARCHES: dict[Any, Any] = {
    Router: RouterSearch,
    Dms: DmsSearch,
    Get: GetSearch,
    Mes: MesSearch,
    Sns: SnsSearch,
    L0: L0Search,
    Ddp: DdpSearch,
    LapSum: LapSumSearch,
}


class Separable:
    """Fits random vectors of which four features tell the class; a training loop as the protocol asks."""

    def __init__(self) -> None:
        self.weights_changed = False

    def fit(self, model: nn.Module, recipe: Any, loop: Any, structure: Any) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam([weight for _, weight in model.named_weights()], lr=5e-3)
        for step in range(STEPS):
            x = torch.randn(64, 16, generator=generator)
            structure.begin_step(step / STEPS)
            loss = functional.cross_entropy(model(x), x[:, :4].argmax(1)) + structure.loss()
            loss.backward()
            if structure.trains_weights:
                optimizer.step()
            structure.end_step()
            optimizer.zero_grad()
        return model


def context(seed: int = 0, pipeline: str = "DMSnp", share: float = 0.3) -> SearchContext:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(16, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 4))
    space = find_space(model, torch.randn(1, 16))
    trial: Any = SimpleNamespace(
        seed=seed, pipeline=pipeline, search=Recipe(epochs=1), budget=SimpleNamespace(kind="macs")
    )
    loop: Any = SimpleNamespace(device=torch.device("cpu"))
    task: Any = Separable()
    return SearchContext(trial, task, model, space, budget_of(space, macs=share), loop)


def kept(architecture: Architecture) -> list[int]:
    return [len(elements) for elements in architecture.groups.values()]


@pytest.mark.parametrize(
    "method",
    [
        DmsSearch(Dms(structure={"lr": 0.05})),
        DmsSearch(Dms(budget="projected")),
        DmsSearch(Dms(importance="index", structure={"lr": 0.05})),
        DmsSearch(Dms(structure={"optimizer": "sgd", "lr": 0.05}, importance_decay=0)),
        GetSearch(Get()),
        MesSearch(Mes(variant="as_released")),
        MesSearch(Mes()),
        SnsSearch(Sns(variant="as_released")),
        SnsSearch(Sns()),
        L0Search(L0()),
        L0Search(L0(budget="projected")),
        DdpSearch(Ddp()),
        DdpSearch(Ddp(budget="penalty")),
        LapSumSearch(LapSum()),
        LapSumSearch(LapSum(budget="lagrangian")),
        RouterSearch(Router()),
        UniformSearch(Uniform()),
        RandomArchitecture(Random()),
    ],
    ids=[
        "dms",
        "dms projected",
        "dms by index",
        "dms by sgd",
        "get",
        "mes as released",
        "mes",
        "sns as released",
        "sns",
        "l0",
        "l0 projected",
        "ddp",
        "ddp by penalty",
        "lapsum",
        "lapsum by multipliers",
        "router",
        "uniform",
        "random",
    ],
)
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_methods_meet_the_budget(method, share):
    given = context(share=share)
    architecture = method.search(given)
    target = share * given.space.macs
    assert abs(architecture.macs - target) <= 0.01 * target


def test_the_supernet_is_kept_whole():
    given = context()
    architecture = KeepSupernet(WholeSupernet()).search(given)
    assert architecture.macs == given.space.macs
    assert kept(architecture) == [96, 96]


def test_uniform_keeps_one_share_of_every_group_and_the_largest_weights():
    given = context()
    with torch.no_grad():
        given.model[0].weight[:40] *= 100
    architecture = UniformSearch(Uniform()).search(given)
    first, second = kept(architecture)
    assert abs(first - second) <= 1
    assert set(range(40)) <= set(architecture.groups["0"])


def test_random_depends_on_the_seed_alone():
    one, again, other = (RandomArchitecture(Random()).search(context(seed)) for seed in (1, 1, 2))
    assert one == again
    assert one.groups != other.groups


def test_dms_finds_more_than_chance_and_lowers_its_target():
    given = context()
    before = [weight.clone() for weight in given.model.parameters()]
    structure_metrics: list[dict[str, float]] = []
    fit = given.task.fit

    def watched(model: nn.Module, recipe: Any, loop: Any, structure: DmsStructure) -> nn.Module:
        begin = structure.begin_step

        def noted(progress: float) -> None:
            begin(progress)
            structure_metrics.append(structure.metrics())

        structure.begin_step = noted  # type: ignore[method-assign]
        return fit(model, recipe, loop, structure)

    given.task.fit = watched  # type: ignore[method-assign]
    architecture = DmsSearch(Dms(structure={"lr": 0.05})).search(given)
    targets = [metrics["target_macs"] for metrics in structure_metrics]
    assert targets[0] == given.space.macs
    assert targets == sorted(targets, reverse=True)
    assert targets[-1] == pytest.approx(0.3 * given.space.macs)
    assert structure_metrics[-1]["hard_macs"] < 0.45 * given.space.macs
    assert {"soft_macs", "temperature", "kept_ratio_mean", "kept/0", "kept/2"} <= structure_metrics[-1].keys()
    assert sum(kept(architecture)) < 192
    assert any(not torch.equal(a, b) for a, b in zip(before, given.model.parameters(), strict=True))


@pytest.mark.parametrize("method", [method for method in SEARCHES if method is not Router])
def test_a_projected_search_needs_no_resource_loss_and_pays_for_its_target(method: Any) -> None:
    given = context()
    spec = method(budget="projected", structure={"lr": 0.05})
    net = Supernet(given.model, given.space, SEARCHES[method](spec).relaxation(given))
    structure = DmsStructure(net, spec, given.budget, trains_weights=True)
    x = torch.randn(32, 16, generator=torch.Generator().manual_seed(3))
    for step in range(20):
        structure.begin_step(step / 20)
        assert float(structure.loss()) == 0
        values = structure.metrics()
        if step >= 4:
            assert values["soft_macs"] == pytest.approx(values["target_macs"], rel=0.01)
        net(x).square().mean().backward()
        structure.end_step()
        net.zero_grad()
    assert values["target_macs"] == pytest.approx(0.3 * given.space.macs)


def test_what_a_projected_search_does_not_use_is_no_part_of_it() -> None:
    assert Dms(budget="projected", resource_weight=3).canonical() == Dms(budget="projected").canonical()
    assert Dms(resource_weight=3).canonical() != Dms().canonical()
    assert [Dms().label(), Dms(budget="projected").label()] == ["dms", "dms projected"], "two rows of a leaderboard"
    assert Mes(budget="projected").label() == "mes fair projected"
    assert "budget" not in Dms().model_dump(), "trials from before there was a choice keep their hashes"
    assert [L0().label(), L0(budget="penalty").label(), Dms(budget="lagrangian").label()] == [
        "l0",
        "l0 penalty",
        "dms lagrangian",
    ]
    for method in (Mes, Sns):
        with pytest.raises(ValueError, match="variant 'fair'"):
            method(variant="as_released", budget="projected")


def test_dms_minus_leaves_the_weights_as_they_are():
    given = context(pipeline="DMSp-")
    before = [weight.clone() for weight in given.model.parameters()]
    DmsSearch(Dms(structure={"lr": 0.05})).search(given)
    assert all(torch.equal(a, b) for a, b in zip(before, given.model.parameters(), strict=True))


@pytest.mark.parametrize(
    "spec",
    [Dms(), Dms(budget="projected"), L0(), Ddp(), LapSum(), Dms(budget="lagrangian"), Router()],
    ids=["penalty", "projected", "l0", "ddp", "lapsum", "multipliers", "router"],
)
def test_the_structures_state_resumes_to_the_bit(spec: Any) -> None:
    def run(interrupted: bool) -> torch.Tensor:
        given = context()
        net = Supernet(given.model, given.space, SEARCHES[type(spec)](spec).relaxation(given))
        structure = DmsStructure(net, spec, given.budget, trains_weights=True)
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(3))
        for step in range(6):
            if interrupted and step == 3:
                saved, state = net.state_dict(), structure.state_dict()
                net = Supernet(context().model, given.space, SEARCHES[type(spec)](spec).relaxation(given))
                net.load_state_dict(saved)
                structure = DmsStructure(net, spec, given.budget, trains_weights=True)
                structure.load_state_dict(state)
            structure.begin_step(step / 6)
            (net(x).square().mean() + structure.loss()).backward()
            structure.end_step()
            net.zero_grad()
        return net.structure_parameters()[0].detach().clone()

    assert torch.equal(run(interrupted=False), run(interrupted=True))


def test_the_resource_loss_is_weighed_and_depth_freezes_when_the_target_has_arrived():
    given = context()
    net = Supernet(given.model, given.space)
    structure = DmsStructure(net, Dms(resource_weight=3, decay_share=0.5), given.budget, trains_weights=True)
    structure.begin_step(0.49)
    assert not net.depth_frozen
    structure.begin_step(0.5)
    assert net.depth_frozen
    assert float(structure.loss().detach()) == pytest.approx(3 * float(net.resource_loss(given.budget).detach()))
    assert float(structure.loss().detach()) == pytest.approx(3 * torch.tensor(1 / 0.3).log().item(), rel=1e-4)


def test_multipliers_wait_until_something_is_decided_and_then_drive_the_cost_down() -> None:
    given = context()
    net = Supernet(given.model, given.space, L0Search(L0()).relaxation(given))
    structure = DmsStructure(net, L0(), given.budget, trains_weights=True)
    x = torch.randn(32, 16, generator=torch.Generator().manual_seed(3))
    assert structure.lagrangian is not None
    for step in range(100):
        structure.begin_step(step / 100)
        (net(x).square().mean() + structure.loss()).backward()
        structure.end_step()
        net.zero_grad()
        if step < 20:
            assert structure.lagrangian.linear.tolist() == [0]
    assert structure.lagrangian.linear.tolist() > [0]
    values = structure.metrics()
    assert values["soft_macs"] == pytest.approx(values["target_macs"], rel=0.2)


@pytest.mark.parametrize("spec", [kind() for kind in SEARCHES], ids=[kind.__name__ for kind in SEARCHES])
def test_a_search_that_was_saved_after_its_last_step_decides_the_same(spec: Any) -> None:
    """Killed between its last step and its cut, it is loaded and cut: nothing may depend on what only steps set."""

    def supernet() -> Supernet:
        given = context()
        return Supernet(given.model, given.space, SEARCHES[type(spec)](spec).relaxation(given))

    given, net = context(), supernet()
    structure = DmsStructure(net, spec, given.budget, trains_weights=True)
    x = torch.randn(32, 16, generator=torch.Generator().manual_seed(3))
    for step in range(20):
        structure.begin_step(step / 20)
        (net(x).square().mean() + structure.loss()).backward()
        structure.end_step()
        net.zero_grad()
    loaded = supernet()
    loaded.load_state_dict(net.state_dict())
    with torch.no_grad():
        for one, other in zip(
            (*net.proposal(), *net.soft_size()), (*loaded.proposal(), *loaded.soft_size()), strict=True
        ):
            assert torch.equal(one, other)
        assert torch.equal(net.hard_mask(), loaded.hard_mask())
    assert net.architecture(given.budget) == loaded.architecture(given.budget)


def test_a_part_of_the_optimisers_options_keeps_the_methods_own_rate() -> None:
    assert L0(structure={"optimizer": "sgd"}).structure.lr == L0().structure.lr == 0.1
    assert Ddp(structure={"optimizer": "adam"}) == Ddp()
    assert Dms(structure={"optimizer": "sgd"}).structure.lr == 5e-3
