"""Small residual networks for the tests beside it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Block(nn.Module):
    """A residual block; `post` follows the addition."""

    def __init__(self, channels: int = 12, hidden: int = 8, post: nn.Module | None = None, pre: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels) if pre else nn.Identity()
        self.a = nn.Conv2d(channels, hidden, 3, 1, 1)
        self.b = nn.Conv2d(hidden, channels, 3, 1, 1)
        self.last = nn.BatchNorm2d(channels)
        self.post = post or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.post(x + self.last(self.b(self.a(self.norm(x)).relu())))


class Residual(nn.Module):
    """A stem (non-negative, unless told), blocks and a head."""

    def __init__(self, blocks: Sequence[nn.Module], channels: int = 12, positive: bool = True) -> None:
        super().__init__()
        self.stem, self.positive = nn.Conv2d(3, channels, 3, 1, 1), positive
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.blocks(x.relu() if self.positive else x).mean((2, 3)))


def tie(net: nn.Module, *layers: str) -> nn.Module:
    """Let layers share the first one's weight."""
    for layer in layers[1:]:
        net.get_submodule(layer).weight = net.get_submodule(layers[0]).weight
    return net
