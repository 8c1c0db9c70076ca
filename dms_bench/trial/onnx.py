"""A network as an ONNX file, compared with ONNX Runtime before it is handed out."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from dms_bench.errors import UserError

#: Largest relative difference between PyTorch and ONNX Runtime, in single precision.
TOLERANCE = 1e-4
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def export_onnx(model: nn.Module, example: Tensor, path: Path | str) -> float:
    """Write a network as an ONNX file whose batch size is free.

    Args:
        model: the network, on the CPU; put into eval mode.
        example: an input, [batch, ...].
        path: file to write; there is none when the check fails.

    Returns:
        The relative difference of ONNX Runtime's output from the network's own, on two batch sizes.

    Raises:
        UserError: packages are missing, the network has an operator that ONNX lacks, or outputs differ.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {', '.join(missing)}: install dms-bench[onnx]")
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    pair = torch.cat([example[:1], example[:1].flip(-1)])  # a batch of one would be taken for fixed
    try:
        path.unlink(missing_ok=True)  # of another network, perhaps
        with _quiet(), torch.no_grad():
            model.eval()
            program = torch.onnx.export(
                model, (pair,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False
            )
            assert program is not None
            program.save(str(unfinished), external_data=False)
        error = max(_difference(model, unfinished, inputs) for inputs in (pair, torch.cat([pair, pair + 1, pair - 1])))
        if not error <= TOLERANCE:
            raise UserError(f"{path}: ONNX Runtime's outputs differ from the network's own by {error:.1e}")
        unfinished.replace(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # the exporter raises whatever its passes meet
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{path}: this network cannot be written as ONNX: {line[:300]}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return error


def _difference(model: nn.Module, path: Path, inputs: Tensor) -> float:
    import onnxruntime

    with torch.no_grad():
        expected: Tensor = model(inputs)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (name,) = (node.name for node in session.get_inputs())
    computed = torch.from_numpy(session.run(None, {name: inputs.numpy()})[0])
    if computed.shape != expected.shape:
        return float("inf")
    return float((computed - expected).norm() / expected.norm().clamp_min(1e-12))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and advice to itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
