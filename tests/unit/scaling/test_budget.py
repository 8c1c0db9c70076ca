"""Several constraints: what the loss sums, and which stage gives way."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dms_bench.scaling import Budget, Constraint, budget_of, find_space
from dms_bench.scaling.fit import fit_to_budget


class Linear:
    """A cost that counts kept elements, times a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, kept: Tensor, blocks: Tensor) -> Tensor:
        return self.factor * kept.sum(-1)

    def to(self, device: torch.device) -> Linear:
        return self


def budget(*shares: float) -> Budget:
    """Return constraints that 10 kept elements miss by these factors."""
    return Budget(tuple(Constraint(str(share), Linear(share), 10.0, 100.0) for share in shares))


KEPT, NO_BLOCKS = torch.tensor([4.0, 6.0]), torch.zeros(0)


@pytest.mark.parametrize("shares", [(2.0,), (2.0, 3.0), (3.0, 0.5), (0.5, 0.9), (1.0, 1.5, 4.0)])
def test_equation_6_is_summed_over_the_constraints_that_are_missed(shares: tuple[float, ...]) -> None:
    expected = sum(max(0.0, math.log(share)) for share in shares)
    assert float(budget(*shares).loss(KEPT, NO_BLOCKS)) == pytest.approx(expected, abs=1e-6)


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class TwoStages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.first = nn.Sequential(*(Branch() for _ in range(4)))
        self.second = nn.Sequential(*(Branch() for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(self.stem(x)).relu()))


@pytest.fixture(scope="module")
def space() -> Any:
    torch.manual_seed(0)
    found = find_space(TwoStages(), torch.randn(2, 4))
    assert [stage.name for stage in found.stages] == ["first", "second"]
    return found


@pytest.mark.parametrize("closer", [0, 1])
@pytest.mark.parametrize("more", [True, False])
def test_the_stage_whose_share_was_rounded_most_gives_way_first(space: Any, closer: int, more: bool) -> None:
    """Rounded to two blocks each, no width fits; one more (or less) goes to the stage that asked for it."""
    groups, width = len(space.groups), space.width_elements
    asked = [2.4, 2.1] if more else [1.6, 1.9]
    if closer:
        asked.reverse()
    counts = torch.cat([torch.tensor(space.units.sizes[:groups]).float(), torch.tensor(asked)])

    def cost(widths: tuple[int, ...], depths: tuple[int, int]) -> float:
        mask = torch.zeros(space.units.total)
        for start, count in zip(space.units.starts, (*widths, *depths), strict=True):
            mask[start : start + count] = 1
        return float(space.hard_cost("macs", mask))

    widest, thinnest = space.units.maximum[:groups], space.units.minimum[:groups]
    target = cost(widest, (3, 2)) if more else (cost(thinnest, (2, 1)) + cost(thinnest, (2, 2))) / 2
    mask = fit_to_budget(space, counts, torch.arange(space.units.total).float(), budget_of(space, macs=target))
    depths = [int(blocks.sum()) for blocks in mask[width:].split([4, 4])]
    chosen = depths.index(3 if more else 1)
    assert sorted(depths) == ([2, 3] if more else [1, 2])
    assert chosen == closer
