"""The search space on real models: what is found, what it costs, and that masking equals cutting."""

import functools

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dms_bench.scaling import Supernet, budget_of, count, cut, find_space
from dms_bench.scaling.fit import fit_to_budget
from dms_bench.scaling.space.space import SearchSpace

MODELS = {
    "resnet18": 64,
    "resnet50": 64,
    "efficientnet_b0": 64,
    "mobilenetv2_100": 64,
    "deit_tiny_patch16_224": 224,
}


@functools.cache
def case(name: str) -> tuple[nn.Module, torch.Tensor, SearchSpace]:
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    example = torch.randn(2, 3, MODELS[name], MODELS[name])
    return model, example, find_space(model, example)


def random_mask(space: SearchSpace, seed: int, share: float = 0.5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(space.units.total)
    for start, size, low in zip(space.units.starts, space.units.sizes, space.units.minimum, strict=True):
        keeps = max(low, round(share * size))
        mask[start + torch.randperm(size, generator=generator)[:keeps]] = 1
    return mask


def test_resnet50_has_the_published_number_of_structure_parameters():
    space = case("resnet50")[2]
    assert len(space.groups) == 37
    assert sum(group.size for group in space.groups) == 11_456
    assert [stage.size for stage in space.stages] == [2, 3, 5, 2]
    assert len(space.units.sizes) == 41
    assert space.units.total == 11_468


def test_deit_searches_heads_hidden_widths_the_stream_and_blocks():
    space = case("deit_tiny_patch16_224")[2]
    assert sum(group.heads for group in space.groups) == 12
    assert {group.size for group in space.groups if group.heads} == {3}
    assert sum(group.size == 768 for group in space.groups) == 12
    assert [stage.size for stage in space.stages] == [12]
    assert space.stages[0].minimum == 1


@pytest.mark.parametrize("name", MODELS)
def test_cut_equals_mask_and_its_macs_equal_the_counters(name):
    model, example, space = case(name)
    assert space.proof_error < 1e-10
    assert (space.macs, space.params) == (count(model, example).macs, count(model, example).params)
    net = Supernet(model, space).eval()
    mask = random_mask(space, seed=1)
    architecture = space.architecture(mask)
    small = cut(model, space, architecture).eval()
    with torch.no_grad(), net.fixed(mask):
        expected = net(example)
    with torch.no_grad():
        found = small(example)
        assert float((found - model(example)).norm()) > 0  # the cut did change the network
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    counted = count(small, example)
    assert (architecture.macs, architecture.params) == (counted.macs, counted.params)
    # The differentiable term gives the same MACs at these sizes.
    kept = torch.tensor([float(len(architecture.groups[group.name])) for group in space.groups])
    assert float(space.macs_model(kept, mask[space.width_elements :])) == counted.macs


@pytest.mark.parametrize("name", MODELS)
def test_cut_networks_train_on(name):
    model, example, space = case(name)
    small = cut(model, space, space.architecture(random_mask(space, seed=2, share=0.3))).train()
    small(example).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in small.parameters())


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("resource", ["macs", "params"])
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_fit_meets_the_budget_within_one_percent(name, resource, share):
    space = case(name)[2]
    low, high = space.reachable(getattr(space, f"{resource}_model"))
    target = share * high
    assert low < target
    generator = torch.Generator().manual_seed(3)
    counts = torch.rand(len(space.units.sizes), generator=generator) * torch.tensor(space.units.sizes)
    mask = fit_to_budget(
        space, counts, torch.rand(space.units.total, generator=generator), budget_of(space, **{resource: target})
    )
    assert abs(space.hard_cost(resource, mask) - target) <= 0.01 * target


@given(st.floats(0.05, 1.0), st.lists(st.floats(0.1, 6), min_size=2, max_size=2))
def test_fit_is_never_more_than_one_percent_above_even_where_the_space_is_coarse(share, counts):
    space = coarse_space()
    low, high = space.reachable(space.macs_model)
    target = max(low, share * high)
    mask = fit_to_budget(space, torch.tensor(counts), torch.rand(space.units.total), budget_of(space, macs=target))
    cost = space.hard_cost("macs", mask)
    assert cost <= 1.01 * target
    every = [space.hard_cost("macs", mask_of(space, one, two)) for one in range(1, 7) for two in range(1, 7)]
    closest = min(abs(other - target) for other in every if other <= 1.01 * target)
    assert abs(cost - target) <= closest + 0.35 * target  # near the best, where steps are a third of the whole


@functools.cache
def coarse_space() -> SearchSpace:
    return find_space(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)).eval(), torch.randn(1, 4))


def mask_of(space: SearchSpace, one: int, two: int) -> torch.Tensor:
    return torch.tensor([1.0] * one + [0.0] * (6 - one) + [1.0] * two + [0.0] * (6 - two))


def test_fit_reaches_both_ends_of_the_space():
    space = case("resnet18")[2]
    low, high = space.reachable(space.macs_model)
    counts = torch.tensor(space.units.sizes).float() / 2
    for target in (low, high):
        mask = fit_to_budget(space, counts, torch.rand(space.units.total), budget_of(space, macs=target))
        assert abs(space.hard_cost("macs", mask) - target) <= 0.01 * target


def test_excluded_groups_are_left_whole():
    model, example, _ = case("resnet18")
    space = find_space(model, example, exclude=["layer4*"])
    assert not [name for name in space.names if name.startswith("layer4")]
    assert "layer4.0.conv1" in space.excluded
    small = cut(model, space, space.architecture(random_mask(space, seed=4)))
    assert small.layer4[0].conv1.out_channels == 512
    assert count(small, example).macs == space.architecture(random_mask(space, seed=4)).macs


def test_an_unknown_operator_freezes_and_never_breaks():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x):
            x = torch.fft.rfft(self.a(x)).real
            return self.c(self.b(torch.nn.functional.pad(x, (0, 7))))

    model, example = Odd().eval(), torch.randn(2, 8)
    space = find_space(model, example)
    assert [group.name for group in space.groups] == ["b"]
    assert "a" in space.excluded


def test_a_wrong_cut_is_found_by_the_proof():
    class Fixed(nn.Module):
        """Its values depend on a channel number."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.free = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 8)
            self.out = nn.Linear(8, 4)

        def forward(self, x):
            hidden = self.a(x)
            return self.out(self.free(self.b(hidden * hidden.shape[1])))

    space = find_space(Fixed().eval(), torch.randn(2, 8))
    assert "a" in space.excluded
    assert {group.name for group in space.groups} == {"b", "free"}


def test_architecture_survives_json_and_refuses_other_spaces():
    _, _, space = case("resnet18")
    architecture = space.architecture(random_mask(space, seed=5))
    again = type(architecture).from_json(architecture.to_json())
    assert again == architecture
    assert torch.equal(space.mask(again), random_mask(space, seed=5))
    with pytest.raises(ValueError, match="another search space"):
        case("efficientnet_b0")[2].mask(architecture)
    with pytest.raises(ValueError, match="not an architecture"):
        type(architecture).from_json('{"groups": 1}')


@pytest.mark.parametrize("params", [0.2, 0.9])
def test_two_constraints_hold_together_and_the_tighter_one_is_met(params):
    space = case("resnet18")[2]
    budget = budget_of(space, macs=0.5, params=params)
    counts = torch.tensor(space.units.sizes).float()
    mask = fit_to_budget(space, counts, torch.rand(space.units.total), budget)
    shares = [space.cost_of(bound.cost, mask) / bound.target for bound in budget.constraints]
    assert max(shares) == pytest.approx(1, abs=0.01)
    assert min(shares) < 0.99


def test_modules_keep_their_own_modes():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2)).train()
    model[1].eval()  # a norm that is frozen while the rest trains
    example = torch.randn(1, 3, 4, 4)
    space = find_space(model, example)
    count(model, example)
    small = cut(model, space, space.architecture(space.full()))
    for network in (model, small):
        assert [module.training for module in network] == [True, False, True, True]
