"""A file, opened in its runtime, as a function from inputs to outputs: on one thread, in single precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench.inference.signal_stack import kept_signal_stack

#: From inputs [batch, ...] to outputs [batch, ...], both on the CPU.
Predict = Callable[[Tensor], Tensor]

#: What each runtime needs to be written and opened -> the extra of dms_bench that brings it.
ONNX, OPENVINO = ("onnx", "onnxscript", "onnxruntime"), ("openvino",)


def need(packages: Sequence[str], what: str, extra: str) -> None:
    """Raise a UserError that names the packages of a runtime that are not installed, if any."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise UserError(f"{what} needs {', '.join(missing)}: install dms-bench[{extra}]")


def eager(model: nn.Module) -> Predict:
    """Return a network as PyTorch runs it."""

    def predict(inputs: Tensor) -> Tensor:
        with torch.inference_mode():
            outputs: Tensor = model(inputs)
        return outputs

    return predict


def onnx_runtime(path: Path) -> Predict:
    """Open an ONNX file in ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (name,) = (node.name for node in session.get_inputs())

    def predict(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: inputs.contiguous().numpy()})[0])

    return predict


def openvino_runtime(path: Path, shape: Sequence[int] | None = None) -> Predict:
    """Open a network of OpenVINO (`.xml`, its weights beside it), or an ONNX file, on the CPU.

    Args:
        path: the file.
        shape: of all inputs, where it is known beforehand: the network is then compiled for it alone, and is faster.
    """
    import openvino

    core = openvino.Core()
    network = core.read_model(str(path))
    if shape is not None:
        network.reshape(list(shape))
    options = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        # By itself it computes in half precision where a processor is good at that,
        "INFERENCE_PRECISION_HINT": "f32",
        # and stays on one core, where it waits for whatever else runs there while others are free.
        "ENABLE_CPU_PINNING": False,
    }
    with kept_signal_stack():
        request = core.compile_model(network, "CPU", options).create_infer_request()

    def predict(inputs: Tensor) -> Tensor:
        found = request.infer([inputs.contiguous().numpy()], share_inputs=True, share_outputs=True)
        return torch.from_numpy(found[0].copy())

    return predict
