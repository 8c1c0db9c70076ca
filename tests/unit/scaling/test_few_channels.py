"""Groups of a few channels, under operators that depend on their order: right under every mask, or refused."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from dms_bench.scaling import Supernet, cut, find_space

OPERATORS = {
    "nothing": lambda y: y,
    "flip": lambda y: y.flip(1),
    "roll": lambda y: torch.roll(y, 2, 1),
    "shuffle": lambda y: functional.channel_shuffle(y, 2),
    "swap": lambda y: torch.cat([y[:, 2:], y[:, :2]], 1),
    "chunks": lambda y: torch.cat(y.chunk(2, 1)[::-1], 1),
    "even and odd": lambda y: torch.cat([y[:, ::2], y[:, 1::2]], 1),
    "interleave": lambda y: y.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
    "unshuffle": lambda y: functional.pixel_unshuffle(y, 2),
    "half": lambda y: torch.cat([y[:, :2].relu(), y[:, 2:]], 1),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("channels", [4, 6, 8])
def test_every_mask_is_right_or_the_group_is_not_searched(name, channels):
    torch.manual_seed(0)
    between = OPERATORS[name]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (
                nn.Conv2d(3, channels, 3, padding=1),
                nn.Conv2d(channels * (4 if name == "unshuffle" else 1), 5, 1),
            )

        def forward(self, x):
            return self.b(between(self.a(x).relu()))

    net, x = Net().eval(), torch.randn(2, 3, 6, 6)
    space = find_space(net, x)
    if name in ("nothing", "flip", "shuffle", "interleave", "unshuffle"):
        assert space.names == ("a",), space.excluded
    if not space.names:
        assert "a" in space.excluded
        return
    supernet = Supernet(net, space)
    for bits in itertools.product((0.0, 1.0), repeat=space.units.total):
        if sum(bits) >= space.units.minimum[0]:
            mask = torch.tensor(bits)
            with supernet.fixed(mask), torch.no_grad():
                torch.testing.assert_close(cut(net, space, space.architecture(mask))(x), supernet(x))
