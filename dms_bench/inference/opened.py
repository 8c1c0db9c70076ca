"""A network opened in another runtime by the shortest way, and timed: for budgets, which ask for many networks.

An export that is kept (`export_onnx`) goes through `torch.export`, which takes ten to thirty times as long as the
exporter by tracing does. That one is asked first here; both are compared with the network before they count.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench.inference.onnx import export_onnx, quiet
from dms_bench.inference.runtimes import ONNX, OPENVINO, Predict, eager, need, onnx_runtime, openvino_runtime
from dms_bench.inference.same import TOLERANCE, distance
from dms_bench.inference.timing import rounds

#: What messages call each runtime that a budget may name, the packages it needs, and the extra that brings them.
RUNTIMES = {"onnxruntime": ("ONNX Runtime", ONNX, "onnx"), "openvino": ("OpenVINO", ONNX + OPENVINO, "openvino")}
#: Rounds in which two networks take turns go on for this many seconds of the processor, within the bounds of `rounds`.
BRIEFLY, LONG = 0.3, 4.0


def require_runtime(runtime: str) -> None:
    """Raise a UserError with the extra to install where a runtime of `RUNTIMES` is not there."""
    name, packages, extra = RUNTIMES[runtime]
    need(packages, name, extra)


def opened(model: nn.Module, example: Tensor, runtime: str) -> Predict:
    """Return a network as a runtime runs it, for inputs of one shape, on one thread.

    Args:
        model: the network, on the CPU and in eval mode.
        example: an input, [batch, ...].
        runtime: one of `RUNTIMES`.

    Raises:
        UserError: the runtime is not installed, cannot run the network, or computes something else.
    """
    require_runtime(runtime)
    errors = []
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        for export in (_traced, export_onnx):
            try:
                export(model, example, path)
                predict = onnx_runtime(path) if runtime == "onnxruntime" else openvino_runtime(path, example.shape)
                if (error := distance(predict(example), eager(model)(example))) <= TOLERANCE:
                    return predict
                errors.append(f"its outputs differ from the network's own by {error:.1e}")
            except Exception as error:  # exporters and runtimes raise whatever they meet
                errors.append(next(iter(str(error).strip().splitlines()), type(error).__name__))
    raise UserError(f"{RUNTIMES[runtime][0]} cannot run this network: {errors[-1].replace(folder, '')[:300]}")


def _traced(model: nn.Module, example: Tensor, path: Path) -> None:
    """Write an ONNX file for inputs of one shape by running the network once."""
    with quiet(), _no_output(), torch.no_grad():
        torch.onnx.export(model, (example,), str(path), dynamo=False)


@contextmanager
def _no_output() -> Iterator[None]:
    """Keep off the standard output what libraries write there past Python: the exporter dumps what it refuses."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def times(first: Predict, second: Predict, example: Tensor, seconds: float = LONG) -> tuple[float, float]:
    """Return what two opened networks take for an example, in milliseconds of the processor; they take turns.

    Of each it is the least of all its turns, as `timeit` advises: a call computes the same every time, and what it
    takes beyond that is other programs' use of caches and memory. On one thread it is what a call takes on a machine
    that does nothing else. Opened six times in OpenVINO where fifteen programs shared two cores, a small network's
    share of another varied by 1 % (standard deviation), of medians by 3 %; with 45 MB of weights by 7 % and 10 %.

    Args:
        first: a network.
        second: the one that it is compared with.
        example: an input of both.
        seconds: when to stop.
    """
    spent = rounds((first, second), example, clock=time.process_time, enough=seconds)
    own, other = (min(turns) for turns in zip(*spent, strict=True))
    return own, other
