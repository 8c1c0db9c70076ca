"""A frozen depth is frozen: the same blocks from the freeze to the cut, at the price that the search paid."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.scaling import Supernet, budget_of, find_space
from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.structure.freeze import decided_depth
from dms_bench.scaling.structure.gumbel import CountChoice, ElementGates
from dms_bench.scaling.structure.hard_concrete import HardConcrete
from dms_bench.scaling.structure.lapsum import LapSum
from dms_bench.scaling.structure.relaxation import Relaxation, StraightThroughTopK, TopK
from dms_bench.scaling.structure.retention import RetentionGates
from dms_bench.scaling.structure.router import Router


class Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu())


def network() -> nn.Module:
    """Five stages of one to five blocks, of different widths and so of different costs."""
    torch.manual_seed(0)
    layers, before = [], 6
    for blocks, width in ((1, 12), (2, 20), (1, 16), (3, 10), (5, 8)):
        layers.append(nn.Sequential(nn.Linear(before, width), *(Block(width, width + 2) for _ in range(blocks))))
        before = width
    return nn.Sequential(*layers, nn.Linear(before, 3))


SPACE = find_space(network(), torch.randn(2, 6))
WIDTH, GROUPS = SPACE.width_elements, len(SPACE.groups)
BLOCKS = SPACE.units.total - WIDTH
RELAXATIONS: dict[str, Callable[[SearchSpace], Relaxation]] = {
    "dms": TopK,
    "get": StraightThroughTopK,
    "mes fair": lambda space: ElementGates(space, seed=0, fair=True),
    "mes as released": lambda space: ElementGates(space, seed=0),
    "sns fair": lambda space: CountChoice(space, seed=0, fair=True),
    "sns as released": lambda space: CountChoice(space, seed=0),
    "l0": lambda space: HardConcrete(space, seed=0),
    "ddp": lambda space: RetentionGates(network(), space),
    "lapsum": LapSum,
    "router": lambda space: Router(space, seed=0),
}


def block_costs(kept: Tensor) -> list[float]:
    whole = torch.ones(BLOCKS)
    costs = []
    for block in range(BLOCKS):
        without = whole.clone()
        without[block] = 0
        costs.append(float(SPACE.macs_model(kept, whole) - SPACE.macs_model(kept, without)))
    return costs


def scrambled(net: Supernet, seed: int) -> Supernet:
    """A structure in the midst of a search."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.structure_parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.9)
        if isinstance(net.relaxation, TopK):
            net.importance.copy_(torch.rand(net.importance.shape, generator=generator))
    net.update()
    return net


def test_the_space_is_what_these_tests_assume() -> None:
    assert [stage.size for stage in SPACE.stages] == [1, 2, 1, 3, 5]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_the_freeze_changes_the_cost_by_one_block_at_most(seed: int) -> None:
    net = scrambled(Supernet(network(), SPACE, TopK(SPACE)), seed)
    kept, _ = net.soft_size()
    before = float(SPACE.macs_model(*net.soft_size()).detach())
    net.depth_frozen = True
    after = float(SPACE.macs_model(*net.soft_size()).detach())
    assert abs(after - before) <= max(block_costs(kept.detach())) * (1 + 1e-9)
    stays = net.relaxation.depth
    soft = net.relaxation.soft_mask()[WIDTH:]
    for stage in torch.split(torch.stack([soft, stays]), [stage.size for stage in SPACE.stages], dim=1):
        kept_masks, gone_masks = stage[0][stage[1] == 1], stage[0][stage[1] == 0]
        assert len(kept_masks) == 0 or len(gone_masks) == 0 or kept_masks.min() >= gone_masks.max()


def test_roundings_that_add_up_are_mended_at_the_masks_nearest_to_one_half() -> None:
    """All of six masks just above 1/2: rounding alone would keep 2.7 blocks more than were paid for."""
    kept = torch.tensor([float(group.size) for group in SPACE.groups])
    soft = torch.full((BLOCKS,), 0.55)
    depth = decided_depth(SPACE, SPACE.macs_model, kept, soft, torch.ones(BLOCKS))
    paid = float(SPACE.macs_model(kept, soft))
    assert abs(float(SPACE.macs_model(kept, torch.ones(BLOCKS))) - paid) > max(block_costs(kept))
    assert abs(float(SPACE.macs_model(kept, depth)) - paid) <= max(block_costs(kept))
    assert 0 < int(depth.sum()) < BLOCKS


def test_the_bounds_of_stages_hold_where_roundings_are_mended() -> None:
    kept = torch.tensor([float(group.size) for group in SPACE.groups])
    depth = decided_depth(SPACE, SPACE.macs_model, kept, torch.full((BLOCKS,), 0.01), torch.ones(BLOCKS))
    for stage, blocks in zip(SPACE.stages, torch.split(depth, [stage.size for stage in SPACE.stages]), strict=True):
        assert int(blocks.sum()) >= stage.minimum


@pytest.mark.parametrize("kind", RELAXATIONS)
def test_what_was_frozen_is_refined_and_cut(kind: str) -> None:
    """Whatever happens to the structure afterwards: momentum, importance that goes on, noise."""
    for seed in range(5):
        net = scrambled(Supernet(network(), SPACE, RELAXATIONS[kind](SPACE)), seed)
        net.depth_frozen = True
        frozen = net.soft_mask()[WIDTH:].detach().clone()
        optimizer = torch.optim.Adam(net.structure_parameters(), lr=0.05)
        for _ in range(5):
            (functional.cross_entropy(net(torch.randn(8, 6)), torch.randint(0, 3, (8,)))).backward()
            optimizer.step()
            optimizer.zero_grad()
            net.update()
            assert torch.equal(net.soft_mask()[WIDTH:], frozen)
            assert torch.equal(net.hard_mask()[WIDTH:], frozen)
            assert torch.equal(net.soft_size()[1], frozen)
        scrambled(net, seed + 100)
        widest = torch.tensor([float(group.size) for group in SPACE.groups])
        reachable = 0.7 * float(SPACE.macs_model(widest, frozen))
        for budget in (None, budget_of(SPACE, macs=reachable)):
            architecture = net.architecture(budget)
            assert torch.equal(SPACE.mask(architecture)[WIDTH:], frozen), budget


def test_a_depth_whose_fewest_elements_are_above_the_budget_gives_way() -> None:
    net = scrambled(Supernet(network(), SPACE, TopK(SPACE)), 0)
    net.relaxation.freeze_depth(torch.ones(BLOCKS))
    fewest = torch.tensor([float(low) for low in SPACE.units.minimum[:GROUPS]])
    budget = budget_of(SPACE, macs=0.9 * float(SPACE.macs_model(fewest, torch.ones(BLOCKS))) / SPACE.macs)
    assert net.architecture(budget).macs <= budget.constraints[0].target * 1.01


def test_a_depth_too_small_for_the_budget_stays() -> None:
    """Blocks that the search gave up do not come back to fill a budget."""
    net = scrambled(Supernet(network(), SPACE, CountChoice(SPACE, seed=0)), 0)
    depth = torch.zeros(BLOCKS)
    depth[[1, 4, 7]] = 1
    net.relaxation.freeze_depth(depth)
    with pytest.warns(UserWarning, match="0.475 times its budget.*and the depth was decided"):
        architecture = net.architecture(budget_of(SPACE, macs=0.9))
    assert torch.equal(SPACE.mask(architecture)[WIDTH:], depth)
    assert all(len(architecture.groups[group.name]) == group.size for group in SPACE.groups)


def test_a_frozen_depth_outlives_a_checkpoint_and_can_be_left_again() -> None:
    net = scrambled(Supernet(network(), SPACE, TopK(SPACE)), 3)
    net.depth_frozen = True
    twin = Supernet(network(), SPACE, TopK(SPACE))
    twin.load_state_dict(net.state_dict())
    assert twin.depth_frozen
    scrambled(twin, 4)
    assert torch.equal(twin.hard_mask()[WIDTH:], net.hard_mask()[WIDTH:])
    assert torch.equal(twin.ratios[GROUPS:], net.ratios[GROUPS:])
    assert copy.deepcopy(net).depth_frozen
    twin.depth_frozen = False
    assert not torch.equal(scrambled(twin, 5).ratios[GROUPS:], net.ratios[GROUPS:])
