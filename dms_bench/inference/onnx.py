"""A network as an ONNX file, compared with ONNX Runtime before it is handed out."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench.inference.runtimes import ONNX, need, onnx_runtime
from dms_bench.inference.same import TOLERANCE, difference, pair_of
from dms_bench.inference.unfinished import unfinished


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
    need(ONNX, "ONNX", "onnx")
    path = Path(path)
    with unfinished(path, "ONNX") as file:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                model.eval(),
                (pair_of(example),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
            assert program is not None
            program.save(str(file), external_data=False)
        error = difference(model, onnx_runtime(file), example)
        if not error <= TOLERANCE:
            raise UserError(f"{path}: ONNX Runtime's outputs differ from the network's own by {error:.1e}")
    return error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress and advice of exporters and quantisers to themselves."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript", "onnx_ir")]
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
