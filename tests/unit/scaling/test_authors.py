"""Held against the formulas of the authors' public code, written out here from their definitions.

What differs on purpose, and is therefore left out or shifted here:

- The rank of an element: theirs counts with ">=", (j + 1) / N, ours is (j + 1/2) / N, so that masks equal theirs at a
  kept ratio e that is half an element smaller. A stage of one block has no such shift.
- Masks scale what a layer contracts over, once; theirs also the input of depthwise layers, whose batch norm undoes it.
- A width costs its real-valued (1 - a) N; theirs the hard count forward and the soft one backward.
- The target falls per step, theirs per epoch; the depth that is frozen is a stored, binary one, theirs stays soft.
- The importance is observed for a share of the search under masks of 1; theirs decides from the first batch on.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.scaling import Supernet, budget_of
from dms_bench.scaling.space.units import Units
from dms_bench.scaling.structure.topk import ascending_positions, normalised_rank, slopes, soft_mask
from dms_bench.scaling.supernet import Schedule

scores = st.lists(st.floats(-1e3, 1e3, allow_nan=False, width=32), min_size=2, max_size=60, unique=True)


def authors_mask(importance: Tensor, kept: Tensor, slope: float) -> Tensor:
    """Their mask of a unit, from the pairwise comparisons to the sigmoid."""
    if len(importance) == 1:
        return torch.sigmoid(8 * (kept - 0.5)).expand(1)
    rank = (importance[:, None] >= importance[None, :]).double().mean(1)
    return torch.sigmoid(slope * (kept - (1 - rank)))


def our_mask(importance: Tensor, ratio: Tensor, steep: bool) -> Tensor:
    size = len(importance)
    units = Units((size,), (0,), (size,), (1,), (steep,))
    positions = ascending_positions(importance, units.owner, torch.zeros(1, dtype=torch.long))
    return soft_mask(normalised_rank(positions.double(), torch.tensor(float(size))), ratio, slopes(units, 1.0).double())


@given(scores, st.floats(0.02, 0.98), st.booleans())
def test_masks_and_their_gradients_are_the_authors_half_an_element_on(group, ratio, steep):
    importance, size = torch.tensor(group, dtype=torch.float64), len(group)
    slope = (4.0 if steep else 1.0) * size
    ours, theirs = (torch.tensor(ratio, dtype=torch.float64, requires_grad=True) for _ in range(2))
    found = our_mask(importance, ours, steep)
    expected = authors_mask(importance, 1 - theirs - 0.5 / size, slope)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = torch.linspace(-1, 2, size, dtype=torch.float64)
    (da,) = torch.autograd.grad((weights * found).sum(), ours)
    (de,) = torch.autograd.grad((weights * expected).sum(), theirs)
    torch.testing.assert_close(da, de, atol=1e-5 * size, rtol=1e-5)


@given(st.floats(0, 1))
def test_a_stage_of_one_block_has_the_authors_mask(ratio):
    a = torch.tensor(ratio, dtype=torch.float64)
    found = our_mask(torch.tensor([3.0], dtype=torch.float64), a, steep=True)
    torch.testing.assert_close(found, authors_mask(torch.tensor([3.0]), 1 - a, 8.0), atol=1e-5, rtol=1e-5)


class Stages(nn.Module):
    """Two stages, of three blocks and of one, around a layer that changes the width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.join, self.head = nn.Linear(6, 10), nn.Linear(10, 7), nn.Linear(7, 3)
        self.first = nn.Sequential(*(Block(10, 5) for _ in range(3)))
        self.last = nn.Sequential(Block(7, 4), nn.Linear(7, 7))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.join(self.first(self.stem(x)))))


class Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).tanh())


def masked_by_hand(model: Stages, masks: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network of the definition: every layer's input times its mask, x + m f(x)."""

    def linear(layer: nn.Linear, x: Tensor, mask: Tensor) -> Tensor:
        return functional.linear(x * mask, layer.weight, layer.bias)

    def block(module: Block, name: str, stream: Tensor, m: Tensor, x: Tensor) -> Tensor:
        return x + m * linear(module.down, linear(module.up, x, stream).tanh(), masks[f"{name}.up"])

    x = functional.linear(x, model.stem.weight, model.stem.bias)
    for number, module in enumerate(model.first):
        x = block(module, f"first.{number}", masks["stem"], masks["stage first"][number], x)
    x = linear(model.join, x, masks["stem"])
    x = block(model.last[0], "last.0", masks["join"], masks["stage last"][0], x)
    x = linear(model.last[1], x, masks["join"])
    return linear(model.head, x, masks["last.1"])


def test_a_search_step_is_the_definitions_in_mask_loss_and_importance():
    """Twenty steps in double precision, with masks by the authors' comparisons, shifted by half an element."""
    torch.manual_seed(0)
    net = Supernet(Stages(), torch.randn(2, 6)).double()
    names = {name: (start, size) for name, start, size in zip(
        net.space.names, net.space.units.starts, net.space.units.sizes, strict=True
    )}  # fmt: skip
    assert [stage.size for stage in net.space.stages] == [3, 1]
    keys = {"stem": "stream", "join": "stream'", "stage first": "first", "stage last": "last"}
    optimizer = torch.optim.SGD(net.structure_parameters(), lr=0.05)
    importance = {name: torch.zeros(size, dtype=torch.float64) for name, (_, size) in names.items()}
    ratios = {name: torch.zeros((), dtype=torch.float64, requires_grad=True) for name in names}
    groups = {name for name in names if name not in {stage.name for stage in net.space.stages}}
    for _ in range(20):
        x, y = torch.randn(16, 6).double(), torch.randint(0, 3, (16,))
        masks = {}
        for name, (_, size) in names.items():
            known = float(importance[name].abs().sum()) > 0
            slope = size if name in groups else 4 * size
            shift = 0.5 / size if size > 1 else 0.0
            mask = authors_mask(importance[name], 1 - ratios[name] - shift, slope)
            masks[name] = mask if known else mask * 0 + 1
            masks[name].retain_grad()
        by_hand = masks | {own: masks[name] for own, name in keys.items()}
        expected = functional.cross_entropy(masked_by_hand(net.model, by_hand, x), y)
        expected.backward()
        loss = functional.cross_entropy(net(x), y)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-7)
        net.zero_grad()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        net.update()
        with torch.no_grad():
            for name, (start, size) in names.items():
                step = (masks[name].detach() * masks[name].grad).square()
                importance[name].mul_(0.99).add_(0.01 * step)
                found = net.importance[start : start + size]
                torch.testing.assert_close(found, importance[name], rtol=1e-5, atol=1e-12)
                least = (1 if name in groups or name == "first" else 0) / size
                ratios[name] -= 0.05 * ratios[name].grad
                ratios[name].clamp_(0, 1 - least)
                ratios[name].grad = None
        torch.testing.assert_close(
            net.ratios.detach(), torch.stack([ratios[name].detach() for name in names]), rtol=1e-5, atol=1e-7
        )


def test_blocks_are_frozen_as_theirs_are_trained_no_more():
    """After the freeze no step moves a stage's ratio, and its masks are constants of the graph."""
    torch.manual_seed(0)
    net = Supernet(Stages(), torch.randn(2, 6))
    budget = budget_of(net.space, macs=0.5)
    optimizer = torch.optim.Adam(net.structure_parameters(), lr=0.02)
    groups, seen = len(net.space.groups), []
    for step in range(60):
        target = net.begin_step(step / 60, budget, Schedule(observe=0.1, decay=0.5))
        loss = functional.cross_entropy(net(torch.randn(16, 6)), torch.randint(0, 3, (16,)))
        (loss + net.resource_loss(target)).backward()
        if net.depth_frozen:
            seen.append((net.ratios[groups:].detach().clone(), net.soft_mask()[net.space.width_elements :].detach()))
            assert float(net.ratios.grad[groups:].abs().max()) == 0
        optimizer.step()
        optimizer.zero_grad()
        net.update()
    assert len(seen) == 30
    assert all(torch.equal(ratio, seen[0][0]) and torch.equal(mask, seen[0][1]) for ratio, mask in seen)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_all_equal_importance_gives_masks_of_one(size):
    """Theirs for units of several elements; a unit of one has nothing to compare and is asked about its ratio alone."""
    net = Supernet(nn.Sequential(nn.Linear(3, size + 1), nn.ReLU(), nn.Linear(size + 1, 2)), torch.randn(1, 3))
    assert torch.equal(net.soft_mask(), torch.ones(size + 1))
