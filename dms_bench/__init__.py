"""Differentiable Model Scaling, benchmarked: searches, controls and leaderboards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__version__ = "0.1.0"


def load(folder: Path | str) -> nn.Module:
    """Build the network that `dms-bench export` has written into `folder`, without pickle or tracing.

    Returns:
        The network on the CPU, in eval mode.

    Raises:
        dms_bench.errors.UserError: the files are missing, damaged or of another format.
    """
    from dms_bench.trial.record import load

    return load(folder)
