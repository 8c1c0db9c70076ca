"""Weights that several layers share: masks act in all of them, and costs are those of what stays."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from dms_bench.scaling.tracing.stages import REPEATED, SHARES
from tests.unit.scaling.agreement import assert_masked_is_cut
from tests.unit.scaling.odd_networks import Block, Residual, tie

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("blocks", "layers"),
    [
        (3, ["blocks.0.a", "blocks.1.a"]),
        (4, ["blocks.0.a", "blocks.1.a", "blocks.2.a"]),
        (3, ["blocks.0.b", "blocks.1.b"]),
        (3, ["blocks.0.last", "blocks.1.last"]),
    ],
)
def test_layers_of_blocks_that_share_a_weight(blocks, layers):
    space = assert_masked_is_cut(tie(Residual([Block() for _ in range(blocks)]), *layers), IMAGES)
    bound = {layer.rpartition(".")[0] for layer in layers}
    assert {name for name, reason in space.excluded.items() if reason == SHARES} == bound
    assert len(space.groups) == blocks + 1 - (len(layers) - 1) * (not layers[0].endswith("last"))
    assert [set(stage.blocks) for stage in space.stages] == [{f"blocks.{i}" for i in range(blocks)} - bound]


def test_a_module_in_two_blocks_and_a_block_that_runs_twice():
    model = Residual([Block() for _ in range(3)])
    model.blocks[2].a = model.blocks[0].a
    space = assert_masked_is_cut(model, IMAGES)
    assert {"blocks.0": SHARES, "blocks.2": SHARES}.items() <= space.excluded.items()
    block = Block()
    space = assert_masked_is_cut(Residual([block, nn.Conv2d(12, 12, 3, 1, 1), block, Block(), Block()]), IMAGES)
    assert space.excluded["blocks.0"] == REPEATED
    assert [stage.blocks for stage in space.stages] == [("blocks.3", "blocks.4")]


class Stages(nn.Module):
    """Blocks of two stages share a convolution."""

    def __init__(self):
        super().__init__()
        self.stem, self.down, self.head = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 2, 2), nn.Linear(8, 5)
        self.one = nn.Sequential(Block(8), Block(8))
        self.two = nn.Sequential(Block(8), Block(8))
        tie(self, "one.1.a", "two.0.a")

    def forward(self, x):
        return self.head(self.two(self.down(self.one(self.stem(x).relu()))).mean((2, 3)))


class Around(nn.Module):
    """Uses the weight of a layer that it also runs."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(6, 10), nn.Linear(10, 10), nn.Linear(10, 4)

    def forward(self, x):
        x = self.first(x).relu()
        return self.last(self.inner(x).relu() + functional.linear(x, self.inner.weight).tanh())


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.hidden, self.last = nn.Linear(6, 12), nn.Linear(12, 9), nn.Linear(12, 4)

    def forward(self, x):
        hidden = self.hidden(self.first(x).relu()).relu()
        return self.last(functional.linear(hidden, self.hidden.weight.t()).relu())


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 4)
        self.one, self.two = nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        tie(self, "one", "two")

    def forward(self, x):
        return self.head(self.two(self.one(self.stem(x)).relu()).mean((2, 3)))


@pytest.mark.parametrize(
    ("kind", "example", "groups"),
    [(Stages, IMAGES, 4), (Around, ROWS, 2), (Autoencoder, ROWS, 2), (Depthwise, IMAGES, 1)],
)
def test_other_ways_to_share(kind, example, groups):
    assert len(assert_masked_is_cut(kind(), example).groups) == groups


class Tokens(nn.Module):
    """Embedding and head share their weight."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 12), nn.Linear(12, 20)
        self.blocks = nn.ModuleList([nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 16), nn.ReLU()) for _ in range(2)])
        self.outs = nn.ModuleList([nn.Linear(16, 12) for _ in range(2)])
        tie(self, "embedding", "head")
        tie(self, "outs.0", "outs.1")

    def forward(self, x):
        x = self.embedding(x)
        for block, out in zip(self.blocks, self.outs, strict=True):
            x = x + out(block(x))
        return self.head(x)


def test_embeddings_and_projections_that_are_shared():
    space = assert_masked_is_cut(Tokens(), torch.arange(10).view(2, 5))
    assert {group.size for group in space.groups} == {12, 16}


def test_a_soft_mask_counts_once_where_a_module_around_scales_the_weight_as_well():
    from dms_bench.scaling import find_space
    from dms_bench.scaling.masks.hooks import MaskedForward

    model = Around().double().eval()
    space = find_space(model, ROWS.double())
    mask = space.full().double()
    mask[:10] = 0.5
    x = ROWS.double()
    with torch.no_grad(), MaskedForward(model, space).using(mask):
        found = model(x)
    with torch.no_grad():
        hidden = 0.5 * model.first(x).relu()
        expected = model.last(model.inner(hidden).relu() + functional.linear(hidden, model.inner.weight).tanh())
    torch.testing.assert_close(found, expected)
