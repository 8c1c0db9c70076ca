"""How a network is trained in one stage; tasks subclass this with what only they know."""

from __future__ import annotations

from pathlib import Path
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

    def needs_teacher(self) -> bool:
        """Whether the stage learns from the pretrained supernet, too; recipes that can distil say when."""
        return False

    def weight_files(self) -> list[Path]:
        """Return the files with weights that the stage reads besides the supernet's: of a teacher of its own."""
        return []
