"""Networks in eight bits: close to what they were, whatever their layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from dms_bench.deploy.int8 import quantise
from dms_bench.inference.onnx import export_onnx
from dms_bench.inference.runtimes import onnx_runtime
from tests.unit.inference.test_onnx import cut_network


@pytest.mark.parametrize(("name", "size"), [("test_vit", 160), ("test_efficientnet", 64)])
def test_outputs_stay_close_beyond_what_all_samples_share(name: str, size: int, tmp_path: Path) -> None:
    network, example = cut_network(name, size, {})
    network.eval()
    generator = torch.Generator().manual_seed(0)
    calibration = [torch.randn(16, *example.shape[1:], generator=generator) for _ in range(2)]
    inputs = torch.randn(32, *example.shape[1:], generator=generator)
    export_onnx(network, example, tmp_path / "model.onnx")
    quantise(tmp_path / "model.onnx", calibration, tmp_path / "small.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "small.onnx"]
    with torch.no_grad():
        expected = network(inputs)
    found = onnx_runtime(tmp_path / "small.onnx")(inputs)
    varies = expected - expected.mean(0)
    assert (found - found.mean(0) - varies).norm() < 0.25 * varies.norm()


def test_scales_and_weights_are_those_of_each_channel(tmp_path: Path) -> None:
    """By the formula: symmetric, the largest weight of a channel at 64, as one bit is left free."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        layer.weight.mul_(torch.tensor([1.0, 10, 100, 1000]).view(4, 1, 1, 1))
    example = torch.randn(1, 3, 8, 8)
    export_onnx(torch.nn.Sequential(layer).eval(), example, tmp_path / "model.onnx")
    quantise(tmp_path / "model.onnx", [example], tmp_path / "small.onnx")
    values = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "small.onnx").graph.initializer
    }
    (weight,) = (value for value in values.values() if value.dtype == np.int8 and value.ndim == 4)
    own = layer.weight.detach().numpy()
    largest = np.abs(own).max((1, 2, 3), keepdims=True)
    assert np.abs(weight - own / largest * 64).max() <= 0.5 + 1e-3
