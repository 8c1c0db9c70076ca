"""How a network is trained in one stage; tasks subclass this with what only they know."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dms_bench.spec.base import Spec


class Recipe(Spec):
    """What every training stage has, whatever the task."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)] = 64

    def samples_per_epoch(self, available: int) -> int:
        """Return how many of the training samples an epoch takes."""
        return available
