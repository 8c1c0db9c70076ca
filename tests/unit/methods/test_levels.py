"""Evolution by level shifts: at the budget all the way, never worse, and the selection against one written out."""

from __future__ import annotations

import zlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from dms_bench.errors import UserError
from dms_bench.methods.base import SearchContext
from dms_bench.methods.discrete.judge import Judge
from dms_bench.methods.discrete.levels import LevelsSearch
from dms_bench.methods.discrete.mutation import Mutation
from dms_bench.methods.discrete.scores import taylor_scores
from dms_bench.methods.discrete.spec import Levels
from dms_bench.scaling import Architecture, budget_of, count, cut
from dms_bench.scaling.fit import fit_to_budget
from tests.unit.classification.classification_helpers import same, snapshot
from tests.unit.methods import test_language
from tests.unit.methods.test_mip import images


def trial(seed: int) -> Any:
    return SimpleNamespace(seed=seed)


def small(seed: int = 0, share: float = 0.5) -> SearchContext:
    return replace(images(share=share), trial=trial(seed))


def search(given: SearchContext, **options: Any) -> Architecture:
    spec = Levels(**({"generations": 2, "offspring": 4, "images": 64, "batches": (1, 2)} | options))
    return LevelsSearch(spec).search(given)


def usage(given: SearchContext, mask: Tensor) -> float:
    bound = given.budget.constraints[0]
    return given.space.hard_cost(bound.name, mask) / bound.target  # type: ignore[arg-type]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, int]]:
    """All that was judged, and on how many batches; the judgement is made of that alone, as good as random."""
    seen: list[tuple[Tensor, int]] = []

    def call(judge: Judge, mask: Tensor, batches: int) -> float:
        seen.append((mask.clone(), batches))
        return value(mask, batches)

    monkeypatch.setattr(Judge, "__call__", call)
    return seen


def value(mask: Tensor, batches: int) -> float:
    return zlib.crc32(bytes([batches, *mask.byte().tolist()])) / 2**32


@pytest.mark.parametrize("language", [False, True])
def test_parents_and_children_are_within_the_tolerance(language: bool, judged: list[tuple[Tensor, int]]) -> None:
    given = test_language.context(exclude=()) if language else small()
    search(given, generations=6, offspring=6)
    assert len({tuple(mask.tolist()) for mask, _ in judged}) > 20
    assert all(abs(usage(given, mask) - 1) <= 0.01 for mask, _ in judged)


def test_the_best_never_gets_worse_on_the_batches_that_decide() -> None:
    given = small()
    judge = Judge(given, "loss", 64)
    even = fit_to_budget(
        given.space, torch.tensor(given.space.units.sizes).float(), taylor_scores(given, 2), given.budget
    )
    fitness = [judge(even, 2)]
    fitness += [judge(given.space.mask(search(given, generations=number)), 2) for number in (1, 2, 4)]
    assert fitness == sorted(fitness, reverse=True)
    assert fitness[-1] < fitness[0]


@pytest.mark.parametrize("rounds", [((), (3,)), ((2,), (1, 4)), ((4, 2), (1, 2, 3))])
def test_selection_is_the_one_written_out(rounds: Any, judged: list[tuple[Tensor, int]]) -> None:
    survivors, batches = rounds
    given = small()
    found = search(given, generations=5, offspring=6, survivors=survivors, batches=batches)

    mutation = Mutation(given, taylor_scores(given, batches[-1]), 16)
    generator = given.generator()
    parent = mutation.fitted(torch.tensor(given.space.units.sizes).float())
    changed = 0
    for _ in range(5):
        children = mutation.children(parent, 6, generator)
        for number, looked in zip(survivors, batches[:-1], strict=True):
            children = [children[best] for best in np.argsort([value(child, looked) for child in children])[:number]]
        everyone = [parent, *children]  # the last round looks at the parent, too
        winner = everyone[int(np.argmin([value(member, batches[-1]) for member in everyone]))]
        changed += not torch.equal(winner, parent)
        parent = winner
    assert changed
    assert given.space.mask(found).tolist() == parent.tolist()
    assert {looked for _, looked in judged} == set(batches)


def test_a_search_depends_on_its_seed_alone_and_leaves_the_network_as_it_was() -> None:
    given = small(1)
    before = snapshot(given.model)
    found = search(given)
    assert found == search(small(1))
    assert same(before, snapshot(given.model))
    assert all(weight.grad is None for weight in given.model.parameters())
    mutation = Mutation(given, torch.rand(given.space.units.total), 4)
    parent = mutation.fitted(torch.tensor(given.space.units.sizes).float())
    ones, others = (mutation.children(parent, 4, replace(given, trial=trial(seed)).generator()) for seed in (1, 2))
    assert not all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


@pytest.mark.parametrize("fitness", ["loss", "kl"])
def test_language_models_are_searched_by_either_fitness(fitness: str) -> None:
    given = test_language.context(exclude=())
    found = search(given, generations=1, offspring=2, fitness=fitness)
    counted = count(cut(given.model, given.space, found), given.task.example_input(1))
    assert counted.params == pytest.approx(given.budget.constraints[0].target, rel=0.01)


def test_a_mutation_moves_units_by_a_level_and_those_that_are_tied_together() -> None:
    given = small()
    space = given.space
    tied = tuple(replace(group, tie="t" if number in (1, 3) else "") for number, group in enumerate(space.groups))
    space = replace(space, groups=tied)
    mutation = Mutation(replace(given, space=space), torch.rand(space.units.total), 5)
    units = space.units
    steps = [max(1, round((most - low) / 4)) for most, low in zip(units.maximum, units.minimum, strict=True)]
    steps[len(space.groups) :] = [1] * len(space.stages)
    middle = torch.tensor([low + step if step > 1 else low for low, step in zip(units.minimum, steps, strict=True)])
    generator = torch.Generator().manual_seed(0)
    numbers = []
    for _ in range(200):
        moves = (mutation._shifted(middle.float(), generator) - middle).tolist()
        assert moves[1] == moves[3]
        levels = [move / step for move, step in zip(moves, steps, strict=True)]
        assert all(level == int(level) for level in levels)
        moved = [level for unit, level in enumerate(levels) if unit != 3 and level]
        assert sum(moved) == 0
        numbers.append(sum(level for level in moved if level > 0))
    # Of two draws of 1 to 3 the smaller is 1, 2 or 3 in 5, 3 and 1 of 9 cases; moves may cancel each other.
    assert max(numbers) == 3
    assert numbers.count(1) > 90


def test_sizes_stay_within_their_bounds() -> None:
    given = small()
    units = given.space.units
    mutation = Mutation(given, torch.rand(units.total), 3)
    generator = torch.Generator().manual_seed(0)
    low, high = (torch.tensor(bounds).float() for bounds in (units.minimum, units.maximum))
    for counts in (low, high, low + 1):
        for _ in range(50):
            shifted = mutation._shifted(counts, generator)
            assert bool((shifted >= low).all())
            assert bool((shifted <= high).all())


def test_a_space_of_one_unit_has_no_other_architecture() -> None:
    given = small()
    space = given.space.without(set(given.space.names) - {"layer4.1.conv1"}, "not searched here")
    middle = sum(space.reachable(space.macs_model)) / 2
    alone = replace(given, space=space, budget=budget_of(space, macs=middle))
    found = search(alone)
    assert abs(usage(alone, space.mask(found)) - 1) <= 0.01


def test_options() -> None:
    assert [Levels().label(), Levels(fitness="kl").label()] == ["levels by loss", "levels by kl"]
    with pytest.raises(ValidationError, match=r"batches \[.*\] are 3 rounds of selection, .*: 2 in place of"):
        Levels(batches=(1, 2, 4))
    with pytest.raises(ValidationError, match="cannot leave more"):
        Levels(offspring=4, survivors=(5,))
    for wrong in ({"batches": (4, 1)}, {"survivors": (2, 3), "batches": (1, 2, 3)}):
        with pytest.raises(ValidationError, match="fewer children"):
            Levels(**wrong)  # type: ignore[arg-type]
    task: Any = object()
    space: Any = None
    Levels().check(space, task)
    with pytest.raises(UserError, match=r"^method\.fitness 'kl' compares predictions of one softmax"):
        Levels(fitness="kl").check(space, task)
