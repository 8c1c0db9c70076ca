"""The elastic spaces: their supernets, and that they hold the published networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import nn

from dms_bench.config import load_suite, resolve
from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.scaling import SearchSpace, count, cut
from dms_bench.scaling.structure.subnets import leading
from dms_bench.trial.spaces import space_of
from dms_bench_tasks.classification import model as classification_model
from dms_bench_tasks.classification.model import build, example_input

SUITE = Path(__file__).parents[3] / "benchmarks" / "elastic.yaml"
TRIALS = {trial.experiment: trial for trial in resolve(load_suite(SUITE))}


def space(experiment: str) -> SearchSpace:
    trial = TRIALS[experiment]
    return space_of(trial.task, trial.supernet)


def network(experiment: str) -> nn.Module:
    return build(TRIALS[experiment].supernet, 1000, 3, 224, 0)


def counts(found: SearchSpace, **wanted: int) -> torch.Tensor:
    """Return elements per unit by the end of its name, given in channels, heads and blocks."""
    steps = [*(group.step for group in found.groups), *(1 for _ in found.stages)]
    chosen = [
        next(value for name, value in wanted.items() if unit.endswith(name)) // step
        for unit, step in zip(found.names, steps, strict=True)
    ]
    return torch.tensor(chosen)


@pytest.mark.parametrize(("kernel", "macs"), [(3, 433e6), (7, 566e6)])
def test_ofa_is_mobilenetv3_with_five_stages_of_four(kernel: int, macs: float) -> None:
    net = build(SupernetSpec(model=f"ofa_mobilenetv3_k{kernel}"), 1000, 3, 224, 0)
    assert count(net, example_input(1, 3, 224)).macs == pytest.approx(macs, rel=0.01)
    stages = list(net.blocks.children())
    assert isinstance(stages[0][0], DepthwiseSeparableConv)
    assert [len(stage) for stage in stages] == [1, 4, 4, 4, 4, 4, 1]
    widths = [16, 24, 40, 80, 112, 160]
    before = 16
    for stage, width, excites, relu in zip(stages[1:6], widths[1:], [0, 1, 0, 1, 1], [1, 1, 0, 0, 0], strict=True):
        for block in stage:
            assert isinstance(block, InvertedResidual)
            assert block.conv_pw.in_channels == before
            assert block.conv_pw.out_channels == 6 * before
            assert block.conv_dw.kernel_size == (kernel, kernel)
            assert block.conv_pwl.out_channels == width
            assert isinstance(block.se, nn.Identity) is not bool(excites)
            assert isinstance(block.bn1.act, nn.ReLU if relu else nn.Hardswish)
            before = width
    # A quarter of the expanded width, in multiples of 8.
    excited = [[block.se.conv_reduce.out_channels for block in stages[number]] for number in (2, 4, 5)]
    assert excited == [[40, 64, 64, 64], [120, 168, 168, 168], [168, 240, 240, 240]]
    assert [stage[0].conv_dw.stride[0] for stage in stages[1:6]] == [2, 2, 2, 1, 2]
    assert (stages[6][0].conv.out_channels, net.conv_head.out_channels) == (960, 1280)


def test_ofa_takes_what_timm_models_take_and_is_named_among_them() -> None:
    net = build(SupernetSpec(model="ofa_mobilenetv3_k3", args={"drop_rate": 0.3}), 7, 1, 64, 0)
    assert net(torch.zeros(2, 1, 64, 64)).shape == (2, 7)
    assert net.drop_rate == 0.3
    with pytest.raises(UserError, match="'ofa_mobilenetv3_k3'"):
        build(SupernetSpec(model="ofa_mobilenet_k3"), 7, 1, 64, 0)
    with pytest.raises(UserError, match="no pretrained weights"):
        build(SupernetSpec(model="ofa_mobilenetv3_k3", pretrained=True), 7, 1, 64, 0)
    assert classification_model.own_size("ofa_mobilenetv3_k3") == 224


def test_the_ofa_space_has_two_to_four_blocks_and_three_to_six_fold_expansions() -> None:
    found = space("ofa-mobilenetv3")
    assert [stage.size for stage in found.stages] == [3] * 5
    assert [stage.minimum for stage in found.stages] == [1] * 5
    assert len(found.groups) == 20
    assert {(group.minimum, group.size) for group in found.groups} == {(3, 6)}
    net = network("ofa-mobilenetv3")
    small = cut(net, found, found.architecture(leading(found.units, torch.tensor(found.units.minimum))))
    # A removed block leaves an identity.
    stages = [[block for block in stage if any(True for _ in block.parameters())] for stage in small.blocks[1:6]]
    assert [len(stage) for stage in stages] == [2] * 5
    for stage in stages:
        for block in stage:
            assert block.conv_pw.out_channels == 3 * block.conv_pw.in_channels
    assert [stage[-1].conv_pwl.out_channels for stage in stages] == [24, 40, 80, 112, 160]


@pytest.mark.parametrize(
    ("experiment", "sizes", "macs", "params"),
    [
        # AutoFormer-T: 1.3 G and 5.7 M (its code: width 192, 13 blocks).
        ("autoformer-t", {"stream": 192, "heads": 3, "fc1": 672, "blocks": 13}, 1.3e9, 5.7e6),
        # AutoFormer-S: 5.1 G and 22.9 M (width 384, 13 blocks, about 6 heads and an MLP of 3.5).
        pytest.param(
            *("autoformer-s", {"stream": 384, "heads": 6, "fc1": 1344, "blocks": 13}, 5.1e9, 22.9e6),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_published_subnets_are_in_the_space(experiment: str, sizes: dict, macs: float, params: float) -> None:
    found = space(experiment)
    assert found.stages[0].minimum == 12
    wanted = counts(found, **sizes)
    assert bool((torch.tensor(found.units.minimum) <= wanted).all())
    assert bool((wanted <= torch.tensor(found.units.maximum)).all())
    architecture = found.architecture(leading(found.units, wanted))
    assert architecture.macs == pytest.approx(macs, rel=0.1)
    assert architecture.params == pytest.approx(params, rel=0.05)
    small = cut(network(experiment), found, architecture)
    assert small.blocks[0].attn.num_heads == sizes["heads"]
    assert small.blocks[0].attn.head_dim == 64
    assert small.embed_dim == sizes["stream"]
    low, high = found.reachable(found.macs_model)
    assert low <= TRIALS[experiment].budget.target <= high
