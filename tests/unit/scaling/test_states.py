"""First states whose size stands in a module's code: `zeros(batch, self.hidden, ...)`."""

import copy

import pytest
import torch
from torch import nn

from dms_bench.scaling import cut, find_space


class ConvLSTM(nn.Module):
    """Frames to a last frame; input and state may be as wide as each other, which its integer cannot tell apart."""

    def __init__(self, width, hidden, how):
        super().__init__()
        self.hidden, self.how = hidden, how
        self.embed = nn.Conv2d(2, width, 3, padding=1)
        self.gates = nn.Conv2d(width + hidden, 4 * hidden, 3, padding=1)
        self.head = nn.Conv2d(hidden, 1, 1)

    def first(self, frames, size):
        shape = (len(frames), size, *frames.shape[-2:])
        return {
            "new_zeros": lambda: frames.new_zeros(*shape),
            "zeros": lambda: torch.zeros(shape, dtype=frames.dtype),
            "size": lambda: torch.zeros(size=shape, dtype=frames.dtype),
            "full": lambda: torch.full(shape, 0.5, dtype=frames.dtype),
        }[self.how]()

    def forward(self, frames):
        h = self.first(frames, self.hidden)
        c = torch.zeros_like(h)
        for step in range(frames.size(1)):
            x = self.embed(frames[:, step]).relu()
            i, f, o, g = torch.split(self.gates(torch.cat([x, h], 1)), self.hidden, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h)


@pytest.mark.parametrize("how", ["new_zeros", "zeros", "size", "full"])
@pytest.mark.parametrize("width", [9, 16])
def test_a_state_of_zeros_is_cut_with_what_it_becomes(width, how):
    torch.manual_seed(0)
    model, x = ConvLSTM(width, 16, how).double().eval(), torch.randn(2, 3, 2, 5, 5).double()
    space = find_space(model, x)
    sizes = {group.name: group.size for group in space.groups}
    assert sorted(sizes.values()) == sorted([width, 16]), space.excluded
    assert space.proof_error < 1e-12
    gone = {"embed": [0, 4], next(name for name in sizes if name != "embed"): [2, 3, 15]}
    mask = space.full()
    for name, start in zip(space.names, space.units.starts, strict=True):
        mask[[start + index for index in gone[name]]] = 0
    small = cut(model, space, space.architecture(mask))
    assert small.gates.weight.shape[:2] == (4 * 13, width - 2 + 13)
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        by_hand.gates.weight[:, [0, 4, width + 2, width + 3, width + 15]] = 0
        by_hand.head.weight[:, [2, 3, 15]] = 0
        for frames in (x, torch.randn(3, 2, 2, 7, 6).double()):
            torch.testing.assert_close(small(frames), by_hand(frames))


def test_a_batch_that_is_as_large_as_an_integer_of_the_module_stays_free():
    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.samples, self.width = 2, 12
            self.first, self.last = nn.Linear(4, 12), nn.Linear(12, 3)

        def forward(self, x):
            return self.last(self.first(x) + torch.ones(len(x), self.width, dtype=x.dtype))

    model = Biased().double().eval()
    space = find_space(model, torch.randn(2, 4).double())
    assert {group.name: group.size for group in space.groups} == {"first": 12}
    mask = torch.ones(12)
    mask[:5] = 0
    small = cut(model, space, space.architecture(mask))
    x = torch.randn(7, 4).double()
    expected = model.last.weight[:, 5:] @ (model.first(x)[:, 5:] + 1).T + model.last.bias[:, None]
    torch.testing.assert_close(small(x), expected.T)
