"""Columns that read a block's output of a concatenation go with that block; on networks small enough to read."""

import pytest
import torch
from torch import nn

from dms_bench.scaling import count, cut, find_space
from dms_bench.scaling.masks.hooks import MaskedForward


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(width, 6, 3, padding=1), nn.Conv2d(6, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.outer(torch.relu(self.inner(x))))


class Collecting(nn.Module):
    """Concatenates its input's projection and what each block makes of it, like C2f."""

    drops_repeats = True

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.blocks = nn.ModuleList(Block(8) for _ in range(blocks))
        self.join = nn.Conv2d(8 * (1 + blocks), 10, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.stem(x)]
        for block in self.blocks:
            out = block(parts[-1])
            if out is not parts[-1]:
                parts.append(out)
        return self.join(torch.cat(parts, 1))


class Network(nn.Module):
    def __init__(self, collecting: nn.Module) -> None:
        super().__init__()
        self.body, self.head = collecting, nn.Conv2d(10, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.body(x))).mean((2, 3))


class Promising(Collecting):
    """Says that it leaves out repeats, and does not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.stem(x)]
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.join(torch.cat(parts, 1))


class Silent(Promising):
    drops_repeats = False


EXAMPLE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network(Collecting()).double().eval()


def kept(space, blocks=(1, 1, 1), seed=0):
    """A mask with random widths and the given blocks."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(space.units.total, generator=generator) > 0.4).float()
    mask[list(space.units.starts)[: len(space.groups)]] = 1  # at least one of each group
    mask[space.width_elements :] = torch.tensor(blocks, dtype=torch.float)
    return mask


@pytest.mark.parametrize("blocks", [(1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 1), (0, 0, 0)])
def test_columns_go_with_their_block_and_nothing_else_does(network, blocks):
    space = find_space(network, EXAMPLE.double())
    assert [stage.name for stage in space.stages] == ["body.blocks"]
    mask = kept(space, blocks)
    small = cut(network, space, space.architecture(mask))
    width = small.body.stem.out_channels
    assert small.body.join.in_channels == width * (1 + sum(blocks))
    # Which columns stayed is read off the weights themselves.
    stream = space.mask(space.architecture(mask))[space.outer_elements["body.stem.weight", 0]].bool()
    columns = torch.cat([stream, *(stream & bool(block) for block in blocks)])
    rows = space.outer_elements["body.join.weight", 0]
    expected = network.body.join.weight[mask[rows].bool()][:, columns]
    assert torch.equal(small.body.join.weight, expected)


@pytest.mark.parametrize("blocks", [(1, 1, 1), (0, 1, 0), (0, 0, 0)])
def test_the_masked_network_is_the_cut_one_and_costs_what_was_predicted(network, blocks):
    space = find_space(network, EXAMPLE.double())
    mask = kept(space, blocks).double()
    small = cut(network, space, space.architecture(mask))
    with torch.no_grad():
        found = small(EXAMPLE.double())
        with MaskedForward(network, space).using(mask):
            expected = network(EXAMPLE.double())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    counted = count(small, EXAMPLE[:1].double())
    assert (space.hard_cost("macs", mask), space.hard_cost("params", mask)) == (counted.macs, counted.params)


def test_all_blocks_may_go_where_their_columns_go_with_them(network):
    assert find_space(network, EXAMPLE.double()).stages[0].minimum == 0


def test_a_soft_mask_reaches_the_columns_of_its_block(network):
    space = find_space(network, EXAMPLE.double())
    mask = space.full().double()
    mask[space.width_elements + 1] = 0.5
    half = torch.ones(network.body.join.in_channels, dtype=torch.double)
    half[16:24] = 0.5  # the second block's columns: 16 to 23
    with torch.no_grad(), MaskedForward(network, space).using(mask):
        found = network(EXAMPLE.double())
        body = network.body
        x0 = body.stem(EXAMPLE.double())
        x1 = body.blocks[0](x0)
    with torch.no_grad():
        x2 = x1 + 0.5 * (body.blocks[1](x1) - x1)
        x3 = body.blocks[2](x2)
        joined = nn.functional.conv2d(
            torch.cat([x0, x1, x2, x3], 1), body.join.weight * half.view(1, -1, 1, 1), body.join.bias
        )
        expected = network.head(torch.relu(joined)).mean((2, 3))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_columns_stay_where_their_blocks_are_no_longer_searched(network):
    space = find_space(network, EXAMPLE.double())
    without = space.without(["body.blocks"], "for the test")
    assert not without.inner_elements
    mask = kept(without, ())
    small = cut(network, without, without.architecture(mask))
    assert small.body.join.in_channels == 4 * small.body.stem.out_channels


def test_columns_are_cut_where_widths_are_not_searched(network):
    space = find_space(network, EXAMPLE.double(), width=False)
    assert not space.groups
    small = cut(network, space, space.architecture(torch.tensor([1.0, 0.0, 1.0])))
    assert small.body.join.in_channels == 8 * 3
    assert space.proof_error < 1e-12


def test_a_module_that_says_nothing_keeps_its_columns():
    network = Network(Silent()).double().eval()
    space = find_space(network, EXAMPLE.double())
    assert not space.inner_elements
    small = cut(network, space, space.architecture(kept(space, (1, 0, 1))))
    assert small.body.join.in_channels == 4 * small.body.stem.out_channels


def test_a_module_that_does_not_keep_its_promise_loses_its_depth():
    """The proof tells."""
    space = find_space(Network(Promising()).double().eval(), EXAMPLE.double())
    assert "body.blocks" in space.excluded
    assert not space.stages


class Apart(Collecting):
    """Joins the first block's output, but not next to its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.stem(x)
        second = self.blocks[0](first)
        third = self.blocks[1](second)
        last = [third] if third is not second else []
        return self.join(torch.cat([first, torch.relu(first), second, *last], 1))


def test_only_what_follows_its_input_has_columns_of_its_own():
    collecting = Apart(2)
    collecting.join = nn.Conv2d(32, 10, 1)
    space = find_space(Network(collecting).double().eval(), EXAMPLE.double())
    owners = space.inner_elements["body.join.weight", 1] - space.width_elements
    assert all(int(elements.max()) < space.width_elements for _, elements in space.occurrences())
    assert owners[24:].eq(1).all()
    assert owners[:24].lt(0).all()
    assert space.stages[0].minimum == 1
