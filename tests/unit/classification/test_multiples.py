"""Supernets with their width and depth multiplied: shapes, blocks and MACs, and families that have no such thing."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from dms_bench.config.problems import InvalidSpecError
from dms_bench.config.supernet import SupernetSpec, parse_supernet
from dms_bench.errors import UserError
from dms_bench.scaling import count, find_space
from dms_bench_tasks.classification.model import build

#: MobileNetV2 (table 2 of its paper): expansion, channels, blocks, stride of every stage.
STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def eights(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded  # never more than a tenth less


def mobilenet_macs(width: float, depth: float, size: int, classes: int) -> int:
    side, before = size // 2, eights(32 * width)
    macs = side**2 * 27 * before
    for expansion, channels, blocks, stride in STAGES:
        after = eights(channels * width)
        for block in range(math.ceil(blocks * depth)):
            inner, step = before * expansion, stride if block == 0 else 1
            macs += side**2 * before * inner if expansion > 1 else 0
            side //= step
            macs += side**2 * (9 * inner + inner * after)
            before = after
    last = max(1280, eights(1280 * width))
    return macs + side**2 * before * last + last * classes


@pytest.mark.parametrize(("width", "depth"), [(1.5, 2.0), (1.0, 1.5), (0.75, 1.0)])
def test_mobilenet_is_wider_and_deeper(width, depth):
    model = build(SupernetSpec(model="mobilenetv2_100", width=width, depth=depth), 10, 3, 64, seed=0)
    assert [len(stage) for stage in model.blocks] == [math.ceil(depth * blocks) for _, _, blocks, _ in STAGES]
    found = [stage[-1].conv_pwl.out_channels for stage in model.blocks[1:]]
    assert found == [eights(width * channels) for _, channels, _, _ in STAGES[1:]]
    assert model.conv_stem.out_channels == eights(32 * width)
    assert count(model, torch.randn(1, 3, 64, 64)).macs == mobilenet_macs(width, depth, 64, 10)


def test_multiples_are_of_what_the_network_has():
    twice = build(SupernetSpec(model="mobilenetv2_120d", width=2), 10, 3, 64, seed=0)  # 1.2 wide, 1.4 deep itself
    found = [stage[0].conv_pwl.out_channels for stage in twice.blocks[1:]]
    assert found == [eights(2 * 1.2 * channels) for _, channels, _, _ in STAGES[1:]]
    assert [len(stage) for stage in twice.blocks[1:-1]] == [math.ceil(1.4 * blocks) for _, _, blocks, _ in STAGES[1:-1]]


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv3_large_100", "tinynet_e"])
def test_other_families_grow_in_both(name):
    def size(**factors: float) -> tuple[int, int]:
        model = build(SupernetSpec(model=name, **factors), 10, 3, 64, seed=0)
        return sum(map(len, model.blocks)), model.blocks[-1][0].bn1.num_features

    blocks, channels = size()
    assert size(depth=2)[0] > 1.5 * blocks
    assert size(depth=2)[1] == channels
    assert size(width=2) == (blocks, 2 * channels)


def test_a_multiplied_supernet_is_searched():
    model = build(SupernetSpec(model="mobilenetv2_100", width=0.5, depth=2), 10, 3, 32, seed=0)
    space = find_space(model, torch.randn(1, 3, 32, 32))
    assert sum(stage.size for stage in space.stages) == 27  # 34 blocks; the first of each stage stays
    assert space.proof_error < 1e-10


def test_deit_small_with_sixteen_blocks():
    own, deep = (
        build(SupernetSpec(model="deit_small_patch16_224", args={"depth": depth}), 10, 3, 32, seed=0)
        for depth in (12, 16)
    )
    block = sum(parameter.numel() for parameter in own.blocks[0].parameters())
    assert len(deep.blocks) == 16
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (own, deep)]
    assert sizes[1] - sizes[0] == 4 * block


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"model": "resnet18", "width": 2},
            "supernet.model 'resnet18' has no width multiplier in timm; its size is decided by supernet.args: "
            "channels, layers",
        ),
        (
            {"model": "hf-hub:timm/resnet18.a1_in1k", "width": 2},
            "supernet.model 'hf-hub:timm/resnet18.a1_in1k' has no multipliers: none of timm's builders makes it",
        ),
        ({"model": "fbnetv3_b", "depth": 2}, "supernet.model 'fbnetv3_b' has no depth multiplier in timm"),
        (
            {"model": "deit_tiny_patch16_224", "depth": 2},
            "supernet.model 'deit_tiny_patch16_224' has no depth multiplier in timm; its size is decided by "
            "supernet.args: depth, embed_dim, num_heads, mlp_ratio",
        ),
    ],
)
def test_families_without_multipliers_say_what_they_have(fields, line):
    with pytest.raises(UserError) as error:
        build(SupernetSpec(**fields), 10, 3, 64, seed=0)
    assert str(error.value) == line


def test_pretrained_weights_do_not_fit():
    with pytest.raises(InvalidSpecError) as error:
        parse_supernet({"model": "mobilenetv2_100", "width": 1.5, "pretrained": True})
    assert str(error.value) == "supernet: there are no pretrained weights at width 1.5 and depth 1"


def test_labels_tell_supernets_apart():
    assert SupernetSpec(model="mobilenetv2_100").label() == "mobilenetv2_100"
    assert SupernetSpec(model="mobilenetv2_100", width=1.5, depth=2).label() == "mobilenetv2_100 x1.5 wide x2 deep"


def test_tasks_that_cannot_multiply_refuse(make_trial):
    with pytest.raises(ValidationError, match="task 'paper' has no supernets with 'width' or 'depth' multiplied"):
        make_trial(supernet={"model": "net", "width": 2})
