"""Integers in code that are compared with the sizes of what a module is given, and with nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dms_bench.scaling import cut, find_space
from tests.unit.scaling.test_what_people_write import halved


class Checked(nn.Module):
    """A convolution that looks at its input first, as code for key points does."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.channels, self.conv = inputs, nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        assert x.size()[1] == self.channels, f"{x.size()[1]} {self.channels}"
        x = self.conv(x)
        return x.relu()


@pytest.mark.parametrize("widths", [(8, 12, 16), (12, 12, 12)])
def test_a_size_that_is_asserted_alone_is_corrected(widths: tuple[int, ...]) -> None:
    """Also where inputs and outputs have one size, which the code would not tell apart."""
    torch.manual_seed(0)
    layers = [Checked(inputs, outputs) for inputs, outputs in zip((3, *widths), widths, strict=False)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 4)).eval()
    x = torch.randn(2, 3, 8, 8)
    space = find_space(model, x)
    assert [group.size for group in space.groups] == list(widths)
    assert space.proof_error < 1e-12
    small = cut(model, space, halved(space))
    assert [layer.channels for layer in small[:3]] == [3, *(width // 2 for width in widths[:-1])]
    small(x)


def test_a_number_that_equals_a_size_by_chance_stays() -> None:
    class Fixed(Checked):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__(inputs, outputs)
            self.positions = 64  # as many as channels

        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[2] * x.shape[3] == self.positions
            return self.conv(x)

    model = nn.Sequential(nn.Conv2d(3, 64, 1), Fixed(64, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    x = torch.randn(2, 3, 8, 8)
    space = find_space(model.eval(), x)
    small = cut(model, space, halved(space))
    assert small[1].positions == 64
    assert small[0].out_channels == 32
    small(x)


class Numbers(nn.Module):
    """A stride that equals the width of a layer, and a scale by the width that an embedding was made with."""

    def __init__(self) -> None:
        super().__init__()
        self.every, self.table = 8, nn.Embedding(20, 8)
        self.inner, self.last = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens) * self.table.embedding_dim**0.5
        return self.last(self.inner(x).relu()[:, :: self.every])


def test_integers_that_are_wanted_as_they_were_stay() -> None:
    torch.manual_seed(0)
    model, tokens = Numbers().eval(), torch.randint(0, 20, (2, 24))
    space = find_space(model, tokens)
    assert sorted(group.size for group in space.groups) == [8, 8]
    assert space.proof_error < 1e-12
    mask = torch.ones(16)
    mask[[1, 2, 9]] = 0
    small = cut(model, space, space.architecture(mask))
    assert small.every == 8
    by_hand = copy.deepcopy(model)
    first, second = ([1, 2], [1]) if len(small.inner.weight) == 7 else ([1], [1, 2])
    with torch.no_grad():
        by_hand.inner.weight[:, first] = 0
        by_hand.last.weight[:, second] = 0
        torch.testing.assert_close(small(tokens), by_hand(tokens))
