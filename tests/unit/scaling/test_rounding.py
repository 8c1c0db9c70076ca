"""Cuts in multiples of a number of channels: what stays, how close the budget is, and what is left alone."""

from __future__ import annotations

import functools
import itertools

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dms_bench.scaling import Coarse, SearchSpace, Supernet, budget_of, cut, find_space
from dms_bench.scaling.fit import _Sizes, fit_to_budget, nearest


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=10).eval()


@functools.cache
def case(name: str) -> tuple[nn.Module, SearchSpace]:
    model = build(name)
    return model, find_space(model, torch.randn(1, 3, 32, 32), round_to=8)


def kept(space: SearchSpace, mask: torch.Tensor) -> list[int]:
    return torch.zeros(len(space.units.sizes)).index_add_(0, space.units.owner, mask).long().tolist()


@given(st.sampled_from(["resnet18", "mobilenetv2_100"]), st.floats(0.15, 1), st.integers(0, 1000))
@settings(deadline=None, max_examples=12)
def test_kept_numbers_are_multiples_of_the_most_important_and_meet_the_budget(name, share, seed):
    space = case(name)[1]
    generator = torch.Generator().manual_seed(seed)
    counts = torch.rand(len(space.units.sizes), generator=generator) * torch.tensor(space.units.sizes)
    importance = torch.rand(space.units.total, generator=generator)
    low, high = space.reachable(space.macs_model)
    target = max(low, share * high)
    mask = fit_to_budget(space, counts, importance, budget_of(space, macs=target))
    for group, number in zip(space.groups, kept(space, mask), strict=False):
        assert number % 8 == 0 or number == group.size
    assert abs(space.hard_cost("macs", mask) / target - 1) <= 0.01
    for start, size in zip(space.units.starts, space.units.sizes, strict=True):
        own, stays = importance[start : start + size], mask[start : start + size].bool()
        assert len(set(stays.tolist())) == 1 or float(own[stays].min()) > float(own[~stays].max())


def test_a_network_of_few_multiples_comes_close_too():
    """Where one group's next multiple is 40 % of all MACs, all others have to make room for it."""
    model = timm.create_model("test_efficientnet", in_chans=1, num_classes=20).eval()
    space = find_space(model, torch.randn(1, 1, 32, 32), round_to=8)
    sizes, misses = torch.tensor(space.units.sizes), []
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        target = space.reachable(space.macs_model)[1] * (0.15 + 0.75 * torch.rand(1, generator=generator).item())
        counts = torch.rand(len(sizes), generator=generator) * sizes
        importance = torch.rand(space.units.total, generator=generator)
        mask = fit_to_budget(space, counts, importance, budget_of(space, macs=target))
        misses.append(abs(space.hard_cost("macs", mask) / target - 1))
    assert sum(miss <= 0.01 for miss in misses) >= 28
    assert max(misses) < 0.03


def test_the_cut_network_has_such_layers():
    model, space = case("mobilenetv2_100")
    counts = torch.tensor(space.units.sizes) * 0.6
    mask = fit_to_budget(space, counts, torch.rand(space.units.total), budget_of(space, macs=0.4))
    small = cut(model, space, space.architecture(mask))
    convolutions = [module for module in small.modules() if isinstance(module, nn.Conv2d)]
    assert all(conv.out_channels % 8 == 0 for conv in convolutions)
    assert any(conv.out_channels < full.out_channels for conv, full in zip(convolutions, convs(model), strict=False))


def convs(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def layers(*widths: int, groups: int = 1) -> nn.Module:
    parts: list[nn.Module] = []
    for before, after in zip((3, *widths), (*widths, 2), strict=True):
        parts += [nn.Conv2d(before, after, 3, padding=1, groups=groups if before == after else 1), nn.ReLU()]
    return nn.Sequential(*parts[:-1]).eval()


def space_of(model: nn.Module, **options: object) -> SearchSpace:
    return find_space(model, torch.randn(1, 3, 6, 6), **options)  # type: ignore[arg-type]


def test_small_groups_and_the_whole_of_uneven_ones_are_allowed():
    space = space_of(layers(6, 20, 64), round_to=8)
    assert space.units.multiple == (1, 8, 8)
    assert space.units.minimum == (1, 8, 8)
    for proposed, expected in (
        ((2.6, 3.0, 27.0), [3, 8, 24]),
        ((6.0, 19.0, 60.1), [6, 20, 64]),
        ((0.0, 17, 1), [1, 16, 8]),
    ):
        assert kept(space, nearest(space, torch.tensor(proposed), torch.rand(90))) == expected
    full = fit_to_budget(space, torch.tensor([6.0, 20, 64]), torch.rand(90), budget_of(space, macs=float(space.macs)))
    assert kept(space, full) == [6, 20, 64]


def test_single_steps_lead_from_multiple_to_multiple_and_to_the_whole():
    sizes = _Sizes(space_of(layers(6, 20, 64), round_to=8), torch.rand(90))
    steps = [[6, 20, 64], [5, 16, 56], [4, 8, 48]]
    for above, below in itertools.pairwise(steps):
        assert sizes.less(torch.tensor(above)).tolist() == below
        assert sizes.more(torch.tensor(below)).tolist() == above
    assert sizes.less(torch.tensor([1, 8, 8])).tolist() == [1, 8, 8]
    assert sizes.more(torch.tensor(steps[0])).tolist() == steps[0]


def test_multiples_are_of_channels_whatever_an_element_is():
    grouped = space_of(layers(48, 48, groups=12), round_to=8)  # an element is a group of four channels
    assert (grouped.units.sizes, grouped.units.multiple) == ((12,), (2,))
    coarse = space_of(layers(96), coarse=[Coarse(groups="*", step=12, max=80)], round_to=8)
    assert (coarse.units.sizes, coarse.units.multiple, coarse.units.maximum) == ((8,), (2,), (6,))
    vit = find_space(
        timm.create_model("test_vit", img_size=32, num_classes=3).eval(), torch.randn(1, 3, 32, 32), round_to=8
    )
    assert {multiple for group, multiple in zip(vit.groups, vit.units.multiple, strict=False) if group.heads} == {
        1
    }  # heads are whole


@pytest.mark.parametrize("round_to", [1, 8])
def test_an_architecture_without_a_budget_is_rounded_too(round_to):
    model = layers(64)
    net = Supernet(model, space_of(model, round_to=round_to))
    net.importance.copy_(torch.rand(64))
    with torch.no_grad():
        net.ratios.fill_(1 - 29 / 64)
    assert len(net.architecture().groups["0"]) == (29 if round_to == 1 else 32)


def test_where_widths_are_too_coarse_a_block_more_or_less_meets_the_budget():
    model = timm.create_model("resnet18", channels=(16, 16, 32, 32), num_classes=10).eval()
    space = find_space(model, torch.randn(1, 3, 32, 32), round_to=8)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        counts = torch.rand(len(space.units.sizes), generator=generator) * torch.tensor(space.units.sizes)
        mask = fit_to_budget(space, counts, torch.rand(space.units.total), budget_of(space, macs=0.3))
        assert space.hard_cost("macs", mask) == pytest.approx(0.3 * space.macs, rel=0.01)
