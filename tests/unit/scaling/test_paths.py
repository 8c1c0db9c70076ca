"""Random subnets: uniform, leading, the same everywhere; a masked step is the cut network's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dms_bench.scaling import Coarse, Supernet, cut, find_space
from dms_bench.scaling.space.units import Units
from dms_bench.scaling.structure.subnets import RandomPaths, leading, random_counts

UNITS = Units(sizes=(4, 6, 3), minimum=(1, 3, 0), maximum=(4, 5, 3), multiple=(1, 1, 1), steep=(False, False, True))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Sequential(Block(6), Block(6), Block(6)), nn.Linear(6, 2)).double()


X = torch.randn(32, 4, dtype=torch.double, generator=torch.Generator().manual_seed(5))


def test_counts_are_uniform_within_their_bounds():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([random_counts(UNITS, generator) for _ in range(6000)])
    for unit, (low, high) in enumerate(zip(UNITS.minimum, UNITS.maximum, strict=True)):
        frequency = torch.bincount(drawn[:, unit], minlength=high + 1) / len(drawn)
        assert frequency[:low].sum() == 0
        assert len(frequency) == high + 1
        torch.testing.assert_close(
            frequency[low:], torch.full((high - low + 1,), 1 / (high - low + 1)), atol=0.03, rtol=0
        )
    assert torch.corrcoef(drawn.double().T).triu(1).abs().max() < 0.05


def test_the_leading_elements_stay():
    assert leading(UNITS, torch.tensor([1, 3, 0])).tolist() == [1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert leading(UNITS, torch.tensor([4, 5, 2])).tolist() == [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0]


def test_a_step_trains_the_subnet_as_if_it_had_been_cut_out():
    model = network()
    space = find_space(model, X[:1])
    supernet = Supernet(model, space, RandomPaths(space, seed=4)).train()
    mask = supernet.hard_mask()
    assert 0 < mask.sum() < len(mask)
    small = cut(network(), space, space.architecture(mask)).train()
    supernet(X).square().sum().backward()
    small(X).square().sum().backward()
    kept = {name: parameter.grad for name, parameter in small.named_parameters()}
    whole = {name: parameter.grad for name, parameter in model.named_parameters()}
    inner = space.architecture(mask).groups
    first = torch.tensor(next(iter(inner.values())))
    torch.testing.assert_close(whole["0.weight"][: len(first)], kept["0.weight"])
    assert whole["0.weight"][len(first) :].abs().sum() == 0
    for parameter, gradient in whole.items():
        assert gradient is not None, parameter  # several workers wait for the gradient of every parameter
    assert sum(float(g.square().sum()) for g in whole.values()) == pytest.approx(
        sum(float(g.square().sum()) for g in kept.values())
    )


def test_every_step_has_a_subnet_of_its_own_and_evaluation_the_largest():
    model = network()
    space = find_space(model, X[:1], coarse=[Coarse(groups="stream", max=4)])
    supernet = Supernet(model, space, RandomPaths(space, seed=0)).train()
    assert supernet.structure_parameters() == []
    seen = set()
    for _ in range(20):
        seen.add(tuple(supernet.hard_mask().tolist()))
        supernet(X).sum().backward()
        supernet.update()
    assert len(seen) > 15
    largest = leading(space.units, torch.tensor(space.units.maximum))
    assert 0 < largest.sum() < len(largest)
    supernet.eval()
    assert torch.equal(supernet.soft_mask(), largest)
    small = cut(model, space, space.architecture(largest)).eval()
    torch.testing.assert_close(supernet(X), small(X))


def test_draws_depend_on_the_seed_and_go_on_after_a_resume():
    space = find_space(network(), X[:1])

    def masks(paths: RandomPaths, steps: int) -> list[list[float]]:
        found = []
        for _ in range(steps):
            found.append(paths.hard_mask().tolist())
            paths.update(torch.zeros(0), None)
        return found

    torch.manual_seed(1)
    expected = masks(RandomPaths(space, seed=0), 10)
    torch.manual_seed(2)
    first = RandomPaths(space, seed=0)
    assert masks(first, 4) == expected[:4]
    resumed = RandomPaths(space, seed=0)
    resumed.load_state_dict(first.state_dict())
    assert masks(resumed, 6) == expected[4:]
    assert masks(RandomPaths(space, seed=1), 10) != expected


def test_the_wrapper_moves_without_structure_parameters():
    model = network().float()
    space = find_space(model, X[:1].float())
    supernet = Supernet(model, space, RandomPaths(space, seed=0)).double().train()
    supernet(X).sum().backward()
    assert supernet._probe.grad is not None
    assert supernet._probe.grad.dtype == torch.double
