"""Products of rows that come in groups with one matrix for each group, as mixtures of experts make them."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from dms_bench.scaling import Coarse, Supernet, count, cut, find_space

ROWS, EXPERTS = 12, 3


class Experts(nn.Module):
    """Gated experts between two layers; the rows are sent to experts by their place."""

    def __init__(self, width, hidden, transposed):
        super().__init__()
        self.stem, self.head = nn.Linear(6, width), nn.Linear(width, 3)
        shapes = (width, 2 * hidden), (hidden, width)
        shapes = tuple(reversed(shape) if transposed else shape for shape in shapes)
        self.up, self.down = (nn.Parameter(torch.randn(EXPERTS, *shape) / 4) for shape in map(tuple, shapes))
        self.transposed = transposed

    def forward(self, x):
        x = self.stem(x).view(-1, self.stem.weight.size(0))
        ends = torch.tensor([len(x) // 6, len(x) // 2, len(x)], dtype=torch.int32)
        up, down = (weight.mT if self.transposed else weight for weight in (self.up, self.down))
        gate, hidden = functional.grouped_mm(x, up, offs=ends).chunk(2, -1)
        return self.head(x + functional.grouped_mm(gate.sigmoid() * hidden, down, offs=ends))


def built(width=32, hidden=24, transposed=False):
    torch.manual_seed(0)
    return Experts(width, hidden, transposed).eval(), torch.randn(2, ROWS, 6)


@pytest.mark.parametrize("transposed", [False, True])
def test_experts_are_searched_in_runs_and_cut_exactly(transposed):
    model, x = built(transposed=transposed)
    space = find_space(model, x)
    assert {group.name: (group.size, group.step) for group in space.groups} == {"stream": (4, 8), "up": (3, 8)}
    assert space.proof_error < 1e-12
    mask = space.full()
    starts = {group.name: start for group, start in zip(space.groups, space.units.starts, strict=True)}
    mask[[starts["stream"] + 1, starts["up"], starts["up"] + 2]] = 0
    small = cut(model, space, space.architecture(mask))
    assert small.stem.out_features == 24
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        inputs, hidden = by_hand.up.mT if transposed else by_hand.up, by_hand.down.mT if transposed else by_hand.down
        # Channels 8 to 15 of the stream; 0 to 7 and 16 to 23 of the experts.
        inputs[:, 8:16], by_hand.head.weight[:, 8:16] = 0, 0
        hidden[:, :8], hidden[:, 16:] = 0, 0
        torch.testing.assert_close(small(x), by_hand(x))


def test_grouped_products_cost_what_each_row_costs():
    model, x = built()
    per_row = 6 * 32 + 32 * 48 + 24 * 32 + 32 * 3
    assert count(model, x).macs == find_space(model, x).macs == ROWS * per_row


def test_a_coarser_step_is_rounded_to_whole_runs():
    model, x = built()
    space = find_space(model, x, coarse=[Coarse(groups="stream", step=16)])
    assert {group.name: (group.size, group.step) for group in space.groups} == {"stream": (2, 16), "up": (3, 8)}


def test_experts_of_other_sizes_than_whole_runs_are_left_alone():
    model, x = built(width=36, hidden=24)
    space = find_space(model, x)
    assert [group.name for group in space.groups] == ["up"]
    assert space.excluded["stem"] == "a grouped product takes 8 at a time"


def test_a_supernet_of_experts_trains():
    model, x = built()
    net = Supernet(model, find_space(model, x)).train()
    net(x).square().mean().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
