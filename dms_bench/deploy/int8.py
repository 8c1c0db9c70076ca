"""A network in eight bits, as ONNX: static quantisation by ONNX Runtime, its ranges out of the training split.

Weights are int8 with a scale for each output channel, activations uint8 with one scale for each tensor, around them
QuantizeLinear and DequantizeLinear, which every runtime of ONNX reads (Jacob et al., CVPR 2018, for the arithmetic).
Ranges are the least and the largest value that each activation takes on the calibration samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from dms_bench.inference.onnx import quiet
from dms_bench.inference.runtimes import ONNX, need
from dms_bench.inference.unfinished import unfinished

#: Training samples that ranges of activations are taken from.
CALIBRATION = 256
#: What computes in eight bits: layers, and what is folded into them or only chooses among their outputs. Additions and
#: norms stay out: one scale for all of a transformer's stream rounds the values of its smaller tokens away.
OPERATORS = ("Conv", "Gemm", "MatMul", "Relu", "Clip", "MaxPool")
#: Largest loss, in points of top-1, with which a file is handed out.
MOST_LOST = 10.0


def quantise(onnx: Path, samples: Iterable[Tensor], path: Path) -> None:
    """Write an ONNX file in eight bits; what it computes is for the caller to look at.

    Args:
        onnx: the network in single precision, with one input.
        samples: batches [batch, ...] of inputs to calibrate on.
        path: file to write.

    Raises:
        UserError: ONNX Runtime is not installed, or cannot quantise this network.
    """
    need(ONNX, "quantisation", "onnx")
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with unfinished(path, "ONNX in 8 bits") as file, quiet(), TemporaryDirectory(dir=path.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(onnx), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(file),
            _Reader(prepared, samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            # Processors without VNNI add pairs of products in 16 bits, which overflow with weights of eight bits: the
            # outputs of EfficientNets are then twice as far off.
            reduce_range=True,
        )


class _Reader:
    """Hands batches to ONNX Runtime one by one, as it asks for them."""

    def __init__(self, onnx: Path, samples: Iterable[Tensor]) -> None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
        (self._name,) = (node.name for node in session.get_inputs())
        self._samples: Iterator[Tensor] = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch by the input's name, None after the last."""
        batch = next(self._samples, None)
        return None if batch is None else {self._name: batch.contiguous().numpy()}
