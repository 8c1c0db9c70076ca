"""How a network is trained in one stage; tasks subclass this with what only they know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dms_bench.config.base import Spec

if TYPE_CHECKING:
    from dms_bench.config.supernet import SupernetSpec
    from dms_bench.config.task import TaskSpec


class Recipe(Spec):
    """What every training stage has, whatever the task."""

    epochs: Annotated[int, Field(ge=1, le=100_000)]
    """Passes over the training data, or over as much of them as the recipe takes for an epoch."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Samples of a batch, as a rule of one optimiser step, over all workers of the trial."""

    def samples_per_epoch(self, available: int) -> int:
        """Return how many of the training samples an epoch takes."""
        return available

    def needs_teacher(self) -> bool:
        """Whether the stage learns from the pretrained supernet, too; recipes that can distil say when."""
        return False

    def teacher(self, task: TaskSpec, supernet: SupernetSpec) -> tuple[TaskSpec, SupernetSpec] | None:
        """Return the network that also sees every sample, and the task as it sees it; None where nobody teaches."""
        return (task, supernet) if self.needs_teacher() else None

    def unfit_for(self, stage: Literal["pretrain", "search", "retrain"]) -> str | None:
        """Return why the recipe cannot be that of a stage; None where it can."""
        return None

    def weight_files(self) -> list[Path]:
        """Return the files with weights that the stage reads besides the supernet's: of a teacher of its own."""
        return []
