"""The recipe of tasks whose training loop is ours: what the loop itself needs to know."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dms_bench.config.recipe import Recipe


class SteppedRecipe(Recipe):
    """One training stage in optimiser steps. `batch_size` counts the samples of a step, over all workers."""

    grad_accum_steps: Annotated[int, Field(ge=1)] = 1
    """Micro-batches that a worker's part of `batch_size` is split into, to save memory; it does not change the size of
    a step."""
    amp: Literal["none", "bf16"] = "none"
    """Precision of the forward pass: none (as the weights are), or bf16 (PyTorch's autocast)."""
