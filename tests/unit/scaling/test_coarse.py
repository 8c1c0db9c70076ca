"""Coarse spaces: runs of channels share a mask, bounds hold for every way to an architecture, cuts are exact."""

from __future__ import annotations

import functools

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dms_bench.scaling import (
    Coarse,
    CoarseError,
    SearchSpace,
    Supernet,
    budget_of,
    count,
    cut,
    find_space,
    weight_norms,
)
from dms_bench.scaling.fit import fit_to_budget, nearest
from dms_bench.scaling.structure.topk import slopes

RULES = [
    Coarse(groups="*.fc1", step=24, min=100, max=150),
    Coarse(groups="stream", step=16, min=32),
    Coarse(groups="*", max=1),  # comes too late for all but heads
    Coarse(stages="blocks", min=2, max=4),
]


@functools.cache
def case() -> tuple[nn.Module, torch.Tensor, SearchSpace]:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=5, img_size=32).eval()
    example = torch.randn(2, 3, 32, 32)
    return model, example, find_space(model, example, coarse=RULES)


def test_groups_have_runs_and_bounds_in_channels():
    space = case()[2]
    hidden = [group for group in space.groups if group.name.endswith("fc1")]
    assert {(one.size, one.step, one.minimum, one.maximum, one.members) for one in hidden} == {(8, 24, 5, 6, 192)}
    (stream,) = [group for group in space.groups if "stream" in group.name]
    assert (stream.size, stream.step, stream.minimum, stream.maximum, stream.members) == (4, 16, 2, 4, 64)
    assert {(one.size, one.step, one.minimum, one.maximum) for one in space.groups if one.heads} == {(2, 1, 1, 1)}
    (stage,) = space.stages
    assert (stage.minimum, stage.maximum, stage.size) == (2, 4, 6)


def test_a_run_is_consecutive_channels_of_the_layer():
    space = case()[2]
    rows = space.outer_elements["blocks.0.mlp.fc1.weight", 0]
    assert torch.equal(rows - rows[0], torch.arange(192) // 24)
    assert torch.equal(space.outer_elements["blocks.0.mlp.fc2.weight", 1], rows)


def test_cut_equals_mask_and_macs_equal_the_counters():
    model, example, space = case()
    assert space.proof_error < 1e-12
    mask = space.full()
    for unit, (start, size, low) in enumerate(
        zip(space.units.starts, space.units.sizes, space.units.minimum, strict=True)
    ):
        order = torch.randperm(size, generator=torch.Generator().manual_seed(unit))
        mask[start + order[low:]] = 0
    architecture = space.architecture(mask)
    small = cut(model, space, architecture).eval()
    net = Supernet(model, space).eval()
    with torch.no_grad(), net.fixed(mask):
        expected = net(example)
    torch.testing.assert_close(small(example), expected, rtol=1e-4, atol=1e-5)
    counted = count(small, example[:1])
    assert (counted.macs, counted.params) == (architecture.macs, architecture.params)
    assert space.sizes_of(architecture)["blocks.0.mlp.fc1"] == (120, 192)
    assert small.blocks[space.architecture(mask).stages["blocks"][0]].mlp.fc1.out_features == 120
    assert space.reachable(space.macs_model)[0] == architecture.macs


def test_importance_is_shared_by_a_run():
    model, _, space = case()
    norms = weight_norms(model, space)
    first = int(space.outer_elements["blocks.0.mlp.fc1.weight", 0][0])
    fc1, fc2 = model.blocks[0].mlp.fc1, model.blocks[0].mlp.fc2
    parts = (fc1.weight[:24], fc1.bias[:24], fc2.weight[:, :24])
    assert float(norms[first]) == pytest.approx(float(sum(part.detach().square().sum() for part in parts)) ** 0.5)


def within_bounds(space: SearchSpace, mask: torch.Tensor) -> bool:
    kept = torch.zeros(len(space.units.sizes)).index_add_(0, space.units.owner, mask)
    low, most = torch.tensor(space.units.minimum), torch.tensor(space.units.maximum)
    return bool(((low <= kept) & (kept <= most)).all())


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_cuts_to_a_budget_stay_within_the_bounds(share, seed):
    space = case()[2]
    low, high = space.reachable(space.macs_model)
    generator = torch.Generator().manual_seed(seed)
    counts = torch.rand(len(space.units.sizes), generator=generator) * torch.tensor(space.units.sizes)
    budget = budget_of(space, macs=low + share * (high - low))
    mask = fit_to_budget(space, counts, torch.rand(space.units.total, generator=generator), budget)
    assert within_bounds(space, mask)


def test_the_largest_architecture_has_no_more_than_the_maximum():
    space = case()[2]
    high = space.reachable(space.macs_model)[1]
    assert high < space.macs
    sizes = torch.tensor(space.units.sizes).float()
    mask = fit_to_budget(space, sizes, torch.rand(space.units.total), budget_of(space, macs=float(space.macs)))
    assert within_bounds(space, mask)
    assert space.hard_cost("macs", mask) == pytest.approx(high)


def test_ratios_start_and_stay_within_the_bounds():
    model, _, space = case()
    net = Supernet(model, space)
    hidden = space.names.index("blocks.0.mlp.fc1")
    assert float(net.ratios.detach()[hidden]) == pytest.approx(1 - 6 / 8)
    for value, expected in ((-1.0, 1 - 6 / 8), (2.0, 1 - 5 / 8)):
        with torch.no_grad():
            net.ratios.fill_(value)
        net.importance.copy_(torch.rand(len(net.importance)))
        net.update()
        assert float(net.ratios.detach()[hidden]) == pytest.approx(expected)
        assert within_bounds(space, net.hard_mask())


def test_few_runs_have_the_steep_mask_of_small_units():
    space = case()[2]
    slope = slopes(space.units, 1.0)
    assert float(slope[space.names.index("blocks.0.mlp.fc1")]) == 4 * 8


def test_what_has_no_choice_is_not_searched():
    model, example, _ = case()
    whole = [Coarse(groups="*.fc1", min=192), Coarse(groups="stream", step=64), Coarse(stages="blocks", min=6)]
    space = find_space(model, example, coarse=whole)
    assert all(group.heads for group in space.groups)
    assert not space.stages
    assert space.excluded["blocks.3.mlp.fc1"] == space.excluded["blocks"] == "its bounds leave nothing to choose"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Coarse(groups="*.fc1", step=25), "'*.fc1': 192 elements of blocks.0.mlp.fc1 in runs of 25; try 24 or 32"),
        (
            Coarse(groups="*", equal=True),
            "groups '*' cannot keep equally many: 64 elements of stream, 2 of blocks.0.attn",
        ),
        (Coarse(groups="*.fc9"), "no groups are called '*.fc9'; there are 13, such as 'stream', 'blocks.0"),
        (Coarse(stages="block"), "no stages are called 'block'; there are 1, such as 'blocks'"),
    ],
)
def test_rules_that_fit_nothing_say_so(rule, message):
    model, example, _ = case()
    with pytest.raises(CoarseError) as error:
        find_space(model, example, coarse=[rule])
    assert message in str(error.value)


EQUAL = [Coarse(groups="*.fc1", step=4, equal=True), Coarse(groups="*.heads", equal=True)]


@functools.cache
def equal_case() -> tuple[nn.Module, SearchSpace]:
    model, example, _ = case()
    return model, find_space(model, example, coarse=EQUAL)


def kept_by_pattern(space: SearchSpace, mask: torch.Tensor) -> list[set[int]]:
    kept = torch.zeros(len(space.units.sizes)).index_add_(0, space.units.owner, mask).long().tolist()
    named = dict(zip(space.names, kept, strict=True))
    return [{number for name, number in named.items() if name.endswith(end)} for end in (".fc1", ".heads", "stream")]


@settings(deadline=None, max_examples=40)
@given(st.floats(0.05, 0.95), st.integers(0, 1000))
def test_tied_groups_keep_equally_many_of_their_own_best_at_any_budget(share, seed):
    space = equal_case()[1]
    low, high = space.reachable(space.macs_model)
    generator = torch.Generator().manual_seed(seed)
    counts = torch.rand(len(space.units.sizes), generator=generator) * torch.tensor(space.units.sizes)
    importance = torch.rand(space.units.total, generator=generator)
    budget = budget_of(space, macs=low + share * (high - low))
    mask = fit_to_budget(space, counts, importance, budget)
    assert [len(numbers) for numbers in kept_by_pattern(space, mask)] == [1, 1, 1]
    assert space.hard_cost("macs", mask) <= 1.01 * budget.constraints[0].target
    for start, size in zip(space.units.starts, space.units.sizes, strict=True):
        own, stays = importance[start : start + size], mask[start : start + size].bool()
        assert len(set(stays.tolist())) == 1 or float(own[stays].min()) > float(own[~stays].max())


def test_the_proposal_for_tied_groups_is_their_mean():
    space = equal_case()[1]
    counts = torch.tensor([float(size) for size in space.units.sizes])
    hidden = [unit for unit, name in enumerate(space.names) if name.endswith(".fc1")]
    counts[hidden] = torch.arange(len(hidden)).float() * 2 + 11  # 11, 13, ..., 21
    mask = nearest(space, counts, torch.rand(space.units.total))
    assert kept_by_pattern(space, mask) == [{16}, {2}, {64}]


def test_a_search_moves_the_ratios_of_tied_groups_together():
    model, space = equal_case()
    net = Supernet(model, space)
    net.importance.copy_(torch.rand(len(net.importance)))
    hidden = [unit for unit, name in enumerate(space.names) if name.endswith(".fc1")]
    with torch.no_grad():
        net.ratios.fill_(0.25)
        net.ratios[hidden[0]] = 0.85  # 0.25 + 0.6, shared by six
    net.update()
    ratios = net.ratios.detach()
    torch.testing.assert_close(ratios[hidden], torch.full((len(hidden),), 0.25 + 0.6 / len(hidden)))
    assert float(ratios[0]) == 0.25
    with torch.no_grad():
        net.ratios[hidden[0]] = 0.1
    architecture = net.architecture()
    assert len({len(architecture.groups[space.names[unit]]) for unit in hidden}) == 1
