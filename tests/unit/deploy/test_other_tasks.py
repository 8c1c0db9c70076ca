"""Detectors and language models in other runtimes: the same outputs, or a line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dms_bench.deploy.files import Files
from dms_bench.errors import UserError
from dms_bench.inference.runtimes import onnx_runtime, openvino_runtime
from dms_bench.tasks import Task
from tests.unit.deploy.test_program import detector, language_model


def with_task(family) -> tuple[nn.Module, Tensor, Task]:
    from tests.unit.detection import detection_helpers
    from tests.unit.language import language_helpers

    network, inputs = family()
    return network, inputs, (detection_helpers if family is detector else language_helpers).task()


@pytest.mark.slow
@pytest.mark.parametrize("family", [detector, language_model])
def test_onnx_and_openvino_compute_the_same_and_eight_bits_are_refused(family, tmp_path: Path) -> None:
    network, inputs, task = with_task(family)
    files = Files(network, task, tmp_path, tmp_path, ())
    with torch.no_grad():
        expected = network(inputs)
    for predict in (onnx_runtime(files.onnx), openvino_runtime(files.openvino)):
        torch.testing.assert_close(predict(inputs), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match="--int8 and --compare are for networks that classify"):
        _ = files.int8
    takes, gives = task.inputs_and_outputs(network)  # type: ignore[attr-defined]
    assert str(list(inputs.shape[1:])).strip("[]") in takes
    assert str(expected.shape[1]) in gives
