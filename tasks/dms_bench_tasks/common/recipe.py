"""The recipe of tasks whose training loop is ours: what the loop itself needs to know."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dms_bench.config.recipe import Recipe


class SteppedRecipe(Recipe):
    """One training stage in optimiser steps. `batch_size` counts the samples of a step, over all workers."""

    #: Micro-batches that a worker's part of `batch_size` is split into, to save memory.
    grad_accum_steps: Annotated[int, Field(ge=1)] = 1
    #: Autocast of the forward pass.
    amp: Literal["none", "bf16"] = "none"
