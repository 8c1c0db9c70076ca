"""Greedy joint steps, against a loop that is written out on a small Llama."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from dms_bench.errors import UserError
from dms_bench.methods.base import SearchContext
from dms_bench.methods.discrete.joint_steps import JointStepsSearch, _Walk
from dms_bench.methods.discrete.judge import Judge
from dms_bench.methods.discrete.scores import taylor_scores
from dms_bench.methods.discrete.spec import JointSteps
from dms_bench.scaling import Architecture, budget_of, cut
from dms_bench.scaling.fit import fit_to_budget
from tests.unit.methods import test_language
from tests.unit.methods.test_mip import images

STAGE = "lm.model.layers"


def search(given: SearchContext, **options: Any) -> Architecture:
    return JointStepsSearch(JointSteps(**({"batches": 1, "images": 64} | options))).search(given)


def written_out(given: SearchContext, steps: int) -> tuple[Architecture, list[str]]:
    """The architecture after some steps, and which were taken."""
    space, target = given.space, given.budget.constraints[0].target
    blocks, scores, taken = list(range(len(space.blocks))), taylor_scores(given, 1), []
    widths = [float(group.size) for group in space.groups]

    def network_at(blocks: list[int], params: float) -> Tensor:
        importance = scores.clone()
        importance[space.width_elements :] = torch.tensor([float(n in blocks) for n in range(len(space.blocks))])
        counts = torch.tensor([*widths, float(len(blocks))])
        return fit_to_budget(space, counts, importance, budget_of(space, params=params), depth_fixed=True)

    def loss(mask: Tensor) -> float:
        small = cut(given.model, space, space.architecture(mask)).eval()
        with torch.no_grad():
            return float(next(iter(given.task.losses(small, 1, torch.device("cpu")))))

    def only(mask: Tensor, blocks: list[int]) -> Tensor:
        mask = mask.clone()
        mask[space.width_elements :] = torch.tensor([float(n in blocks) for n in range(len(space.blocks))])
        return mask

    present, cost = space.full(), float(space.params)
    for step in range(1, steps + 1):
        goal = space.params + (target - space.params) * step / steps
        if cost <= goal:
            continue
        without = [[other for other in blocks if other != block] for block in blocks]
        possible = [some for some in without if some and space.hard_cost("params", only(space.full(), some)) >= target]
        if not possible:
            taken.append("width")
            present, cost = network_at(blocks, goal), goal
            continue
        fewer = min(possible, key=lambda some: loss(only(present, some)))
        cost = min(goal, space.hard_cost("params", only(space.full(), fewer)))
        narrower, shallower = network_at(blocks, cost), network_at(fewer, cost)
        if loss(shallower) < loss(narrower):
            present, blocks = shallower, fewer
            taken.append("depth")
        else:
            present = narrower
            taken.append("width")
    return space.architecture(network_at(blocks, target)), taken


def test_steps_are_those_of_a_loop_that_is_written_out() -> None:
    kinds = set()
    for share, steps in ((0.55, 6), (0.8, 3), (0.5, 2)):
        given = test_language.context(layers=5, share=share)
        expected, taken = written_out(given, steps)
        assert search(given, steps=steps) == expected
        kinds |= set(taken)
    assert kinds == {"depth", "width"}


@pytest.mark.parametrize("likes_few", [True, False])
def test_both_candidates_of_a_step_cost_the_same(likes_few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is preferred: by a judge that likes few blocks, or one that likes many."""
    given = images(share=0.5)
    space = given.space
    ends: list[tuple[float, float]] = []
    place = _Walk.at

    def noted(walk: _Walk, mask: Tensor, cost: float, **options: Any) -> Tensor:
        found = place(walk, mask, cost, **options)
        ends.append((cost, space.hard_cost("macs", found) / space.macs * 2))
        return found

    def call(judge: Judge, mask: Tensor, batches: int) -> float:
        return float(mask[space.width_elements :].sum()) * (1 if likes_few else -1)

    monkeypatch.setattr(_Walk, "at", noted)
    monkeypatch.setattr(Judge, "__call__", call)
    found = search(given, steps=5)
    assert len(ends) > 4
    assert all(asked == pytest.approx(got, rel=0.01) for asked, got in ends)
    costs = [cost for cost, _ in ends]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == 1
    candidates = list(Counter(costs[:-1]).values())
    if likes_few:  # until no more block may go there are two candidates
        assert candidates == sorted(candidates, reverse=True)
        assert candidates[0] == 2
        assert sum(map(len, found.stages.values())) < len(space.blocks)
    else:
        assert candidates == [2] * 5
        assert sorted(set(costs)) == pytest.approx([1, 1.2, 1.4, 1.6, 1.8])
        even = fit_to_budget(space, torch.tensor(space.units.sizes).float(), taylor_scores(given, 1), given.budget)
        assert space.mask(found).tolist() == even.tolist()


def test_no_block_goes_whose_cost_widths_cannot_make_up_for() -> None:
    given = test_language.context(layers=4, share=0.9)
    block = (
        1 - given.space.hard_cost("params", torch.cat([given.space.full()[:-1], torch.zeros(1)])) / given.space.params
    )
    assert block > 0.1
    found = search(given, steps=2)
    assert len(found.stages[STAGE]) == 4
    assert found.params == pytest.approx(0.9 * given.space.params, rel=0.01)


def test_it_needs_widths_and_blocks_and_predictions_for_a_divergence() -> None:
    given = images()
    JointSteps(fitness="kl").check(given.space, given.task)
    for gone, lacks in (
        ({s.name for s in given.space.stages}, "blocks"),
        ({g.name for g in given.space.groups}, "widths"),
    ):
        with pytest.raises(
            UserError, match=f"weighs widths against blocks, and this space has no {lacks}: search both"
        ):
            JointSteps().check(given.space.without(gone, "not searched here"), given.task)
    task: Any = object()
    with pytest.raises(UserError, match=r"^method\.fitness 'kl' compares predictions of one softmax"):
        JointSteps(fitness="kl").check(given.space, task)
    assert [JointSteps().label(), JointSteps(fitness="kl").label()] == ["joint_steps by loss", "joint_steps by kl"]
