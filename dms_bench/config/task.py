"""What every task's specification has."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from dms_bench.config.plugins import PluginSpec
from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec


class TaskSpec(PluginSpec):
    """Data and measure of a task; subclasses live in `tasks/` or in other packages."""

    recipe_class: ClassVar[type[Recipe]]
    """The recipe class that this task's training stages are validated with."""
    metric: ClassVar[str]
    """The measure that the leaderboard ranks by: one of those that the task's `evaluate` returns."""
    higher_is_better: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions beside torch whose version decides what a network of some name is."""
    multiplies: ClassVar[bool] = False
    """Whether the task can build a supernet with `width` and `depth` multiplied."""

    def label(self) -> str:
        """Return the task as the leaderboard prints it, for example `glyphs 32px`."""
        return self.kind

    def weight_files(self, supernet: SupernetSpec) -> list[Path]:
        """Return the files that a supernet's weights are read from, in an order that is always the same.

        Not among them are pretrained weights that the version of one of `libraries` decides.

        Raises:
            UserError: they cannot be had.
        """
        return [Path(supernet.checkpoint)] if supernet.checkpoint is not None else []
