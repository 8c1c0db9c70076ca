"""Which blocks end in layers that can carry their mask, judged by the network's build and not by its weights."""

import pytest
import torch
from torch import nn

from dms_bench.scaling.example import Example
from dms_bench.scaling.tracing.branches import find_tails
from tests.unit.scaling.agreement import assert_masked_is_cut
from tests.unit.scaling.odd_networks import Block, Residual

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BLOCKS = ["blocks.0", "blocks.1", "blocks.2"]


@pytest.mark.parametrize(
    ("post", "positive", "carried"),
    [
        (nn.Identity(), True, 3),
        (nn.ReLU(), True, 3),
        (nn.ReLU(), False, 2),  # the first block's input has negative values
        (nn.LeakyReLU(0.1), True, 1),  # what is negative only shows behind the first block
        (nn.ELU(), True, 1),
        (nn.ReLU6(), True, 0),
        (nn.Hardswish(), True, 0),
        (nn.GELU(), True, 0),
        (nn.Mish(), True, 0),
    ],
)
def test_activations_behind_the_addition(post, positive, carried):
    torch.manual_seed(0)
    model = Residual([Block(post=post) for _ in range(3)], positive=positive)
    space = assert_masked_is_cut(model, IMAGES)
    assert [stage.blocks for stage in space.stages] == [tuple(BLOCKS)]
    assert len(space.tails) == carried


def test_what_is_no_residual_path_is_no_block():
    model = Residual([Block(post=nn.PReLU()) for _ in range(3)])
    assert not assert_masked_is_cut(model, IMAGES).stages


def test_blocks_of_different_kinds_in_one_stage_and_a_stage_of_one_block():
    torch.manual_seed(0)
    kinds = [Block(), Block(post=nn.LeakyReLU(0.2)), Block(pre=True), Block(hidden=6, post=nn.ReLU())]
    space = assert_masked_is_cut(Residual(kinds), IMAGES)
    assert [stage.size for stage in space.stages] == [4]
    single = nn.Sequential(Residual([Block()])).double()
    assert not assert_masked_is_cut(single, IMAGES).stages  # nothing else fills the container


class Half(Block):
    """Adds more to its input than what its last layer makes, which a last layer of zero hides."""

    def forward(self, x):
        return x + self.last(self.b(self.a(x).relu())) * (1 + x.mean()) + self.last.weight.mean() * x


@pytest.mark.parametrize("kind", [Block, Half])
def test_zero_initialised_norms_hide_nothing(kind):
    torch.manual_seed(0)
    model = Residual([kind(post=nn.LeakyReLU(0.1)) for _ in range(3)])
    for block in model.blocks:
        nn.init.zeros_(block.last.weight)
        nn.init.zeros_(block.last.bias)
    assert len(find_tails(model.eval(), Example(IMAGES), BLOCKS)) == (1 if kind is Block else 0)
    assert_masked_is_cut(model, IMAGES, generic=False)
    assert_masked_is_cut(model, IMAGES)


def test_a_shared_last_layer_is_not_silenced_elsewhere():
    model = Residual([Block() for _ in range(3)])
    model.blocks[1].last.weight = model.stem.bias  # zero, the stem would hand on less
    assert set(find_tails(model.eval(), Example(IMAGES), BLOCKS)) == set(BLOCKS)
    assert_masked_is_cut(model, IMAGES)
