"""The search space of Ultralytics' networks: nearly all of it, proven unfused and fused."""

import copy

import pytest
import torch
from torch import nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench.scaling import count, cut, find_space
from dms_bench.scaling.masks.hooks import MaskedForward
from dms_bench_tasks.detection import model as models
from tests.unit.detection.detection_helpers import lively, random_mask

NAMES = ("yolov8n.yaml", "yolov8s.yaml", "yolo11n.yaml", "yolo26n.yaml")
EXAMPLE = models.example_input(2, 64)
#: Bottlenecks that add to their input, by stage; those of yolov8's neck do not.
BLOCKS = {
    "yolov8n.yaml": {"model.2.m": 1, "model.4.m": 2, "model.6.m": 2, "model.8.m": 1},
    "yolov8s.yaml": {"model.2.m": 1, "model.4.m": 2, "model.6.m": 2, "model.8.m": 1},
}


@pytest.fixture(scope="module", params=NAMES)
def built(request):
    network = models.build(SupernetSpec(model=request.param), 80, 0)
    return request.param, network, find_space(network, EXAMPLE)


@pytest.mark.parametrize("folded", [False, True], ids=["unfused", "fused"])
def test_nearly_all_macs_are_searched_and_proven(built, folded):
    _, network, space = built
    if folded:
        network = models.fused(network)
        space = find_space(network, EXAMPLE)
    smallest, whole = space.reachable(space.macs_model)
    assert 1 - smallest / whole > 0.95
    assert space.proof_error < 1e-12
    assert whole == count(network, EXAMPLE[:1]).macs
    # What a cut patches in code could not leave dms_bench.
    assert not space.patched


def test_depth_is_that_of_residual_bottlenecks(built):
    name, _, space = built
    if name in BLOCKS:
        assert {stage.name: stage.size for stage in space.stages} == BLOCKS[name]
        assert all(stage.minimum == 0 for stage in space.stages)
    assert space.stages


def test_outputs_bins_and_attention_stay(built):
    _, network, space = built
    head = f"model.{len(network.model) - 1}"
    for (tensor, dim), elements in space.outer_elements.items():
        is_output = tensor.startswith((f"{head}.cv", f"{head}.one2one")) and tensor.split(".")[-2] == "2" and dim == 0
        assert not is_output or not (elements >= 0).any(), tensor
        assert ".dfl." not in tensor
        assert ".attn." not in tensor
    assert any(tensor.startswith(f"{head}.cv2") for tensor, _ in space.outer_elements)
    assert any(tensor.startswith(f"{head}.cv3") for tensor, _ in space.outer_elements)


def test_cutting_and_folding_commute(built):
    """The cut of the unfused network, folded, is the masked network folded."""
    _, network, _ = built
    network = lively(copy.deepcopy(network)).double()
    space = find_space(network, EXAMPLE.double())
    mask = random_mask(space)
    small = models.fused(cut(network, space, space.architecture(mask)))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    folded = models.fused(network)
    with torch.no_grad():
        found = small(EXAMPLE.double())
        masked = MaskedForward(network, space)
        with masked.using(mask.double()):
            expected = network(EXAMPLE.double())
    if found.shape == expected.shape:  # folding drops the head that is for training only
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    else:
        torch.testing.assert_close(found, expected.chunk(2, 1)[1 if network.end2end else 0], rtol=0, atol=1e-8)
    assert count(small, EXAMPLE[:1].double()).macs < count(folded, EXAMPLE[:1].double()).macs


def test_a_removed_bottleneck_takes_its_columns_along(built):
    name, network, space = built
    if name not in BLOCKS:
        return
    mask = space.full()
    mask[space.width_elements + 1] = 0  # the first bottleneck of layer 4
    small = cut(network, space, space.architecture(mask))
    width = network.model[4].second.conv.out_channels
    assert network.model[4].cv2.conv.in_channels == 4 * width
    assert small.model[4].cv2.conv.in_channels == 3 * width
    counted = count(small, EXAMPLE[:1])
    assert space.hard_cost("macs", mask) == counted.macs
    assert space.hard_cost("params", mask) == counted.params
