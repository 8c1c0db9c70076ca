"""A network as a program of torch.export: torch alone opens it, without the code that the network was built by."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench.inference.same import TOLERANCE, difference, pair_of
from dms_bench.inference.unfinished import unfinished


def write_program(model: nn.Module, example: Tensor, path: Path) -> int | None:
    """Write a network as `torch.export.load` reads it, and compare what it reads with the network.

    Args:
        model: the network, on the CPU and in eval mode.
        example: an input, [batch, ...].
        path: file to write; there is none when the check fails.

    Returns:
        The number of samples that the program takes; None where it takes any.

    Raises:
        UserError: torch cannot export the network, or the program's outputs differ.
    """
    batch: int | None = None
    with unfinished(path, "a program of torch.export") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = _exported(model, example, free_batch=True)
        except Exception:  # of what torch traces, which may have fixed the number of samples
            program, batch = _exported(model, example, free_batch=False), 2
        torch.export.save(program, file)
        again = torch.export.load(file).module()
        error = difference(model, again, example, free_batch=batch is None)
        if not error <= TOLERANCE:
            raise UserError(f"{path}: the program's outputs differ from the network's own by {error:.1e}")
    return batch


def _exported(model: nn.Module, example: Tensor, *, free_batch: bool) -> torch.export.ExportedProgram:
    shapes = ({0: torch.export.Dim("batch")},) if free_batch else None
    with torch.no_grad():
        return torch.export.export(model, (pair_of(example),), dynamic_shapes=shapes)
