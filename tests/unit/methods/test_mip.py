"""Levels and integer programs: against brute force, sums written out, and simpler choices of the same levels."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from dms_bench.errors import UserError
from dms_bench.methods.base import SearchContext
from dms_bench.methods.discrete.choices import Choices
from dms_bench.methods.discrete.judge import Judge
from dms_bench.methods.discrete.mip import MipSearch
from dms_bench.methods.discrete.program import Program
from dms_bench.methods.discrete.scores import taylor_scores
from dms_bench.methods.discrete.spec import Mip
from dms_bench.methods.discrete.units import width_units
from dms_bench.methods.divergence import divergence
from dms_bench.methods.rankings.search import threshold_counts
from dms_bench.scaling import Architecture, SearchSpace, budget_of, count, cut, find_space
from dms_bench.scaling.fit import fit_to_budget, nearest
from tests.unit.classification.classification_helpers import MemoryLoop, glyph_task, same, snapshot
from tests.unit.methods import test_language
from tests.unit.methods.test_divergence import naive


def space_of(name: str, **args: Any) -> SearchSpace:
    torch.manual_seed(0)
    return find_space(timm.create_model(name, num_classes=4, in_chans=1, **args).eval(), torch.randn(1, 1, 32, 32))


def images(name: str = "resnet18", share: float = 0.4) -> SearchContext:
    own: Any = glyph_task()
    own.prepare()
    model, space = network_of(name)
    budget = budget_of(space, macs=share)
    return SearchContext(None, own, copy.deepcopy(model), space, budget, MemoryLoop())  # type: ignore[arg-type]


@cache
def network_of(name: str) -> tuple[nn.Module, SearchSpace]:
    """A network of four classes with random weights, and its space: finding it takes seconds."""
    torch.manual_seed(0)
    args = {"channels": [8, 8, 12, 16]} if name == "resnet18" else {}
    model = timm.create_model(name, num_classes=4, in_chans=1, **args)
    return model, find_space(model, glyph_task().example_input())


def drawn(space: SearchSpace, seed: int) -> torch.Tensor:
    """Scores of which some units have large ones, [E]."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(space.units.total, generator=generator, dtype=torch.double) ** 3
    level = torch.randn(len(space.units.sizes), generator=generator, dtype=torch.double).exp()
    return scores * level[space.units.owner]


def program(space: SearchSpace, levels: int, seed: int, **targets: Any) -> Program:
    scores, units = drawn(space, seed), width_units(space, levels)
    lost = [loss for unit in units for loss in unit.lost(space, scores)] + scores[space.width_elements :].tolist()
    return Program(Choices(space, units), np.array(lost), budget_of(space, **targets))


def every_choice(choices: Choices) -> Iterator[np.ndarray]:
    """All levels of all units with all blocks that may go."""
    by_run = []
    for run, low, high in choices.runs:
        rows = itertools.product([0.0, 1.0], repeat=run.stop - run.start)
        by_run.append([row for row in rows if low <= sum(row) <= high])
    for rows in itertools.product(*by_run):
        yield np.array([value for row in rows for value in row])


def least_loss(given: Program) -> float:
    return min(given.loss(choice) for choice in every_choice(given.choices) if given.usage(choice) <= 1)


def solved(given: Program) -> np.ndarray:
    """The solution from an even choice at the budget and from the thinnest, as a search starts."""
    units, scores = given.choices.space.units, torch.ones(given.choices.space.units.total)
    even = fit_to_budget(given.choices.space, torch.tensor(units.sizes).float(), scores, given.budget)
    thinnest = nearest(given.choices.space, torch.tensor(units.minimum).float(), scores)
    return given.solve(given.choices.below(even), given.choices.below(thinnest))


def test_levels_are_spread_evenly_over_what_a_unit_may_keep() -> None:
    model = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))
    space = find_space(model, torch.randn(1, 8))
    free = replace(space, groups=tuple(replace(group, minimum=5, maximum=35) for group in space.groups))
    assert [unit.counts for unit in width_units(free, 4)] == [(5, 15, 25, 35)] * 2
    assert [unit.groups for unit in width_units(free, 2)] == [(0,), (1,)]
    assert width_units(free, 2)[0].counts == (5, 35)
    assert width_units(free, 1000)[0].counts == tuple(range(5, 36))
    tied = replace(free, groups=(replace(free.groups[0], tie="x", minimum=9), replace(free.groups[1], tie="x")))
    assert [(unit.groups, unit.counts) for unit in width_units(tied, 3)] == [((0, 1), (9, 22, 35))]
    eights = replace(space, round_to=8)
    assert width_units(eights, 4)[0].counts == (8, 16, 32, 40)  # 8, 18.7, 29.3, 40
    assert all(width_units(eights, 100)[0].counts[level] == 8 * (level + 1) for level in range(5))


def test_a_level_loses_its_lowest_scores() -> None:
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    space = find_space(model, torch.randn(1, 8))
    scores = drawn(space, 1)
    first, second = (sorted(scores[part].tolist()) for part in (slice(0, 12), slice(12, 24)))
    for unit, own in zip(width_units(space, 5), (first, second), strict=True):
        assert unit.lost(space, scores) == pytest.approx([sum(own[: 12 - kept]) for kept in unit.counts])
    tied = replace(space, groups=tuple(replace(group, tie="x") for group in space.groups))
    unit = width_units(tied, 5)[0]
    assert unit.lost(tied, scores) == pytest.approx([sum(first[: 12 - n]) + sum(second[: 12 - n]) for n in unit.counts])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.35, 0.6])
def test_where_costs_are_linear_the_solution_is_that_of_brute_force(share: float, seed: int) -> None:
    """Of a chain of layers every other width is searched, so that no two searched widths are multiplied."""
    widths = [16, 24, 40, 24, 8, 30, 12, 20, 16]
    layers = [module for a, b in itertools.pairwise(widths) for module in (nn.Linear(a, b), nn.ReLU())]
    space = find_space(nn.Sequential(*layers[:-1]), torch.randn(1, 16))
    alternate = space.without(space.names[1::2], "not searched here")
    assert len(alternate.groups) == 4
    given = program(alternate, 6, seed, macs=share, params=share * 1.02)
    found = solved(given)
    assert given.usage(found) <= 1
    assert given.loss(found) == pytest.approx(least_loss(given), rel=1e-9)


def test_where_costs_are_products_the_solution_is_mostly_that_of_brute_force() -> None:
    space = space_of("resnet18", channels=[8, 8, 16, 16])
    searched = {"layer1.0.conv1", "layer2.stream", "layer3.0.conv1", "layer3.stream", "layer2", "layer3"}
    small = space.without(set(space.names) - searched, "not searched here")
    costs, gaps = {"macs": small.macs_model, "params": small.params_model}, []
    for share, seed in itertools.product((0.1, 0.3, 0.5), range(4)):
        reach = {name: small.reachable(cost) for name, cost in costs.items()}
        given = program(small, 4, seed, **{name: low + share * (high - low) for name, (low, high) in reach.items()})
        found = solved(given)
        assert given.usage(found) <= 1
        gaps.append(given.loss(found) / least_loss(given) - 1)
    assert sorted(gaps)[-3] < 1e-9
    assert max(gaps) < 0.15


def test_levels_that_lose_nothing_are_told_from_tiny_losses() -> None:
    """Scores of weights may be far below what a solver takes for zero."""
    space = space_of("resnet18", channels=[8, 8, 16, 16])
    usual = program(space, 4, 0, macs=0.4)
    tiny = replace(usual, lost=usual.lost * 1e-12)
    assert np.array_equal(solved(usual), solved(tiny))


@pytest.mark.parametrize("network", ["resnet18", "test_efficientnet", "llama"])
def test_on_networks_the_budget_is_met_and_simpler_choices_lose_as_much_or_more(network: str) -> None:
    given = test_language.context(share=0.5) if network == "llama" else images(network)
    space, before = given.space, snapshot(given.model)
    found = MipSearch(Mip(batches=2)).search(given)
    bound = given.budget.constraints[0]
    costs = count(cut(given.model, space, found), given.task.example_input(1))
    assert getattr(costs, bound.name) == pytest.approx(bound.target, rel=0.01)
    assert same(before, snapshot(given.model))
    assert all(weight.grad is None for weight in given.model.parameters())

    scores, units = taylor_scores(given, 2), width_units(space, 8)
    lost = [loss for unit in units for loss in unit.lost(space, scores)] + scores[space.width_elements :].tolist()
    posed = Program(Choices(space, units), np.array(lost), given.budget)
    solution = solved(posed)
    assert posed.usage(solution) <= 1
    one_set = torch.zeros(len(space.groups), dtype=torch.long)
    sizes = torch.tensor(space.units.sizes).float()
    shares = (nearest(space, sizes * share / 20, scores) for share in range(21))
    widths = threshold_counts(space, scores, one_set, given.budget)
    thresholded = nearest(space, torch.cat([widths, sizes[len(space.groups) :]]), scores)
    for mask in (*shares, thresholded):
        rival = posed.choices.below(mask)
        assert posed.usage(rival) > 1 or posed.loss(rival) >= posed.loss(solution) - 1e-12


def test_what_is_chosen_is_what_is_kept() -> None:
    """Where the budget is that of a network without a few useless elements and a useless block, they go."""
    given = images()
    space = given.space
    scores = torch.ones(space.units.total, dtype=torch.double)
    useless = space.units.starts[space.names.index("layer4.1.conv1")]
    scores[useless : useless + 10] = 0
    block = space.width_elements + space.blocks.index("layer3.1")
    scores[space.width_elements :] = 100
    scores[block] = 0
    given = replace(given, budget=budget_of(space, macs=space.hard_cost("macs", (scores > 0).float())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dms_bench.methods.discrete.mip.taylor_scores", lambda context, batches: scores.clone())
        found = MipSearch(Mip(levels=1000)).search(given)
    assert space.mask(found).tolist() == (scores > 0).float().tolist()


def test_blocks_that_were_chosen_stay_before_those_of_higher_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    given = test_language.context()
    space, mask = given.space, given.space.full()
    mask[space.width_elements + 2 :] = 0
    given = replace(given, budget=budget_of(space, params=space.hard_cost("params", mask)))
    scores = torch.arange(space.units.total, dtype=torch.double)
    monkeypatch.setattr("dms_bench.methods.discrete.mip.taylor_scores", lambda context, batches: scores.clone())
    monkeypatch.setattr(Program, "solve", lambda posed, *starts: posed.choices.below(mask))
    assert space.mask(MipSearch(Mip()).search(given)).tolist() == mask.tolist()


def test_measured_losses_are_divergences_of_networks_that_lack_one_thing() -> None:
    given = images()
    searched = {"layer2.0.conv1", "layer3.stream", "layer3", "layer4"}
    space = given.space.without(set(given.space.names) - searched, "not searched here")
    given = replace(given, space=space)
    scores, units = drawn(space, 0), width_units(space, 2)
    found = MipSearch(Mip(score="kl", batches=1, images=96))._measured(given, units, scores)
    assert len(found) == 2 * len(units) + len(space.blocks)
    assert found[1 : 2 * len(units) : 2] == [0.0] * len(units)  # whole
    for variable, name in ((2 * space.names.index("layer2.0.conv1"), "layer2.0.conv1"), (-1, "layer4")):
        kept = {group.name: tuple(range(group.size)) for group in space.groups}
        blocks = {stage.name: tuple(range(stage.size)) for stage in space.stages}
        if variable >= 0:
            start = space.units.starts[space.names.index(name)]
            kept[name] = (int(scores[start : start + space.groups[space.names.index(name)].size].argmax()),)
        else:
            blocks[name] = ()
        small = cut(given.model, space, Architecture(kept, blocks, 0, 0))
        given.task.recalibrate(small, torch.device("cpu"), 96)
        inputs: list[torch.Tensor] = []
        handle = given.model.register_forward_pre_hook(lambda _, args, seen=inputs: seen.append(args[0]))
        list(given.task.losses(given.model.eval(), 1, torch.device("cpu")))
        handle.remove()
        with torch.no_grad():
            logits = [network.eval()(inputs[0]).numpy() for network in (given.model, small)]
        assert found[variable] == pytest.approx(naive(*logits), rel=1e-4, abs=1e-7)


def test_a_judge_measures_networks_as_they_are_cut_out() -> None:
    given = images()
    mask = given.space.full()
    mask[3] = 0
    network = cut(given.model, given.space, given.space.architecture(mask))
    given.task.recalibrate(network, MemoryLoop.device, 40)
    with torch.no_grad():
        expected = [float(loss) for loss in given.task.losses(network.eval(), 2, MemoryLoop.device)]
    assert Judge(given, "loss", 40)(mask, 2) == pytest.approx(sum(expected) / 2)
    assert Judge(given, "loss", 96)(mask, 2) != pytest.approx(sum(expected) / 2, rel=1e-6)
    assert Judge(given, "kl", 40)(mask, 2) == pytest.approx(divergence(given, network, 2))


def test_a_network_whose_loss_is_no_number_is_the_worst() -> None:
    given = images()
    with torch.no_grad():
        next(given.model.parameters()).fill_(torch.nan)
    assert Judge(given, "loss", 40)(given.space.full(), 1) == float("inf")


def test_options() -> None:
    assert [Mip().label(), Mip(score="kl").label()] == ["mip by taylor", "mip by kl"], "two rows of a leaderboard"
    assert Mip(images=7).canonical() == Mip().canonical()
    assert Mip(score="kl", images=7).canonical() != Mip(score="kl").canonical()
    space: Any = None
    boxes: Any = object()
    Mip().check(space, boxes)
    with pytest.raises(UserError, match=r"^method\.score 'kl' compares predictions of one softmax"):
        Mip(score="kl").check(space, boxes)
