"""A network in OpenVINO's own form, made from its ONNX file and compared before it is handed out.

The runtime reads ONNX by itself. OpenVINO's converter of other forms, which reports its use to its makers unless told
not to, is never called.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench.inference.runtimes import OPENVINO, need, openvino_runtime
from dms_bench.inference.same import TOLERANCE, difference
from dms_bench.inference.unfinished import unfinished


def export_openvino(onnx: Path, path: Path, model: nn.Module, example: Tensor) -> list[Path]:
    """Write `path` (`.xml`) and, beside it, its weights (`.bin`), in single precision; the batch size stays free.

    Args:
        onnx: the same network as an ONNX file.
        path: file to write; there is none when the check fails.
        model: the network, on the CPU and in eval mode.
        example: an input, [batch, ...].

    Returns:
        Both files.

    Raises:
        UserError: OpenVINO is not installed, cannot run the network, or computes something else.
    """
    with unfinished(path, "OpenVINO") as xml, unfinished(path.with_suffix(".bin"), "OpenVINO") as weights:
        _convert(onnx, xml)
        error = difference(model, openvino_runtime(xml), example)
        if not error <= TOLERANCE:
            raise UserError(f"{path}: OpenVINO's outputs differ from the network's own by {error:.1e}")
        assert weights.exists()
    return [path, path.with_suffix(".bin")]


def convert_int8(onnx: Path, path: Path) -> list[Path]:
    """Write an ONNX file of eight bits in OpenVINO's form; what it computes is for the caller to look at.

    Raises:
        UserError: OpenVINO is not installed, or cannot read the file.
    """
    with unfinished(path, "OpenVINO") as xml, unfinished(path.with_suffix(".bin"), "OpenVINO"):
        _convert(onnx, xml)
    return [path, path.with_suffix(".bin")]


def _convert(onnx: Path, path: Path) -> None:
    need(OPENVINO, "OpenVINO", "openvino")
    import openvino

    openvino.save_model(openvino.Core().read_model(str(onnx)), str(path), compress_to_fp16=False)
