"""A depth that is decided before the widths, and blocks that may return."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from dms_bench.config.method import MethodSpec
from dms_bench.methods.gradient.spec import Dms
from dms_bench.scaling import Schedule, Supernet, budget_of, find_space
from dms_bench.scaling.structure.relaxation import TopK
from tests.unit.scaling.test_freeze import GROUPS, SPACE, WIDTH, network

STEPS = 100
PHASES = Schedule(observe=0.1, decay=0.8, depth=0.4)


@pytest.mark.parametrize("projected", [False, True])
def test_widths_stay_whole_until_the_depth_is_decided(projected: bool) -> None:
    net = Supernet(network(), SPACE)
    budget = budget_of(SPACE, macs=0.3)
    optimizer = torch.optim.Adam(net.structure_parameters(), lr=0.05)
    for step in range(STEPS):
        target = net.begin_step(step / STEPS, budget, PHASES, projected=projected)
        widths, depth = net.soft_mask()[:WIDTH], net.soft_size()[1]
        if step < 40:
            assert bool((widths == 1).all())
            assert float(net.soft_size()[0].detach().sum()) == pytest.approx(WIDTH)
            assert not net.depth_frozen
        if step == 39:
            assert float(depth.detach().sum()) < 0.9 * len(depth)  # it follows the target by itself
        if step == 40:
            decided = net.relaxation.depth.clone()
        if step >= 40:
            assert net.depth_frozen
            assert torch.equal(net.relaxation.depth, decided)
        images, labels = torch.randn(8, 6), torch.randint(0, 3, (8,))
        loss = functional.cross_entropy(net(images), labels)
        (loss if projected else loss + net.resource_loss(target)).backward()
        optimizer.step()
        optimizer.zero_grad()
        net.update()
    assert float(net.ratios.detach()[:GROUPS].mean()) > 0.1
    architecture = net.architecture(budget)
    assert architecture.macs / SPACE.macs == pytest.approx(0.3, rel=0.02)
    assert sum(map(len, architecture.stages.values())) == int(decided.sum())


def test_without_stages_widths_do_not_wait() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    net = Supernet(model, find_space(model, torch.randn(2, 4)))
    net.begin_step(0.2, budget_of(net.space, macs=0.5), PHASES)
    assert not net.relaxation.depth_first


@pytest.mark.parametrize(("block_importance", "returns"), [("taylor", False), ("fisher", True)])
def test_a_block_returns_where_its_score_is_not_a_product_with_its_mask(block_importance: str, returns: bool) -> None:
    relaxation = TopK(SPACE, block_importance=block_importance, decay=0.5)
    mask, gradient = torch.ones(SPACE.units.total), torch.ones(SPACE.units.total)
    last = slice(SPACE.units.total - 5, None)  # the stage of five blocks
    gradient[last] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    relaxation.update(mask, gradient)
    with torch.no_grad():
        relaxation.ratios[-1] = 0.8
    first = relaxation.hard_mask()[last]
    assert first.tolist() == [0, 0, 0, 0, 1]
    gradient[last] = torch.tensor([9.0, 1.0, 1.0, 1.0, 1.0])  # the first block is missed most
    for _ in range(20):
        relaxation.update(first.new_ones(len(mask)).index_put((torch.arange(len(mask))[last],), first), gradient)
    assert (relaxation.hard_mask()[last].tolist() == [1, 0, 0, 0, 0]) == returns


@pytest.mark.parametrize("depth", [0.1, 0.05, 0.9])
def test_a_depth_decided_out_of_order_is_refused(depth: float) -> None:
    with pytest.raises(ValueError, match="depth cannot be decided"):
        Schedule(observe=0.1, decay=0.8, depth=depth)
    with pytest.raises(ValueError, match=f"depth_share {depth} must lie after"):
        Dms(observe_share=0.1, depth_share=depth)


def test_options_that_change_nothing_are_not_part_of_a_content() -> None:
    spec: MethodSpec = Dms()
    assert not {"depth_share", "block_importance", "skip_zeros"} & spec.model_dump().keys()
    assert Dms(skip_zeros=True, depth_share=0.3).model_dump().keys() >= {"depth_share", "skip_zeros"}
