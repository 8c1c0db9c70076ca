"""What every task's specification has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

from dms_bench.config.content import digest_of_path
from dms_bench.config.plugins import PluginSpec
from dms_bench.config.proposal import Brought
from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec


class Unit(NamedTuple):
    """How the numbers of a measure are shown."""

    symbol: str = ""
    """Stands behind the measure's name; an axis of `%` ends at 100."""
    decimals: int = 3
    """Digits behind the decimal point."""


PERCENT = Unit("%", 1)


class TaskSpec(PluginSpec):
    """Data and measures of a task; subclasses live in `tasks/` or in other packages.

    The task's `evaluate` returns its measures by name. `metric` is the one that trials are ranked by, larger values
    first unless `higher_is_better` is False. `units` says how each is shown:

        metric: ClassVar[str] = "error"
        higher_is_better: ClassVar[bool] = False
        units: ClassVar[Mapping[str, Unit]] = {"error": Unit("mm", 2)}

    All three are recorded with every trial, so that a report needs no plug-in.
    """

    recipe_class: ClassVar[type[Recipe]]
    """The recipe class that this task's training stages are validated with."""
    metric: ClassVar[str]
    """The measure that the leaderboard ranks by: one of those that the task's `evaluate` returns."""
    higher_is_better: ClassVar[bool] = True
    """Direction of `metric`: searches, samplers and the leaderboard look for larger values, or for smaller ones."""
    units: ClassVar[Mapping[str, Unit]] = {}
    """Unit and digits of measures, by their names in `evaluate`; three digits and no unit unless given."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions beside torch whose version decides what a network of some name is."""
    caches: ClassVar[bool] = False
    """Whether its networks keep keys and values of every token, and the task says which outputs those are
    (`cached_rows`, see `dms_bench.tasks.Caches`): then their memory can be bounded."""
    has_head: ClassVar[bool] = False
    """Whether its networks end in a classifier that can be drawn anew where a checkpoint tells other classes apart."""
    picture_size: ClassVar[str | None] = None
    """Name of the field that holds height and width of its pictures, where it has any that can be made smaller."""
    picture_step: ClassVar[int] = 1
    """What that size is a multiple of."""
    multiplies: ClassVar[bool] = False
    """Whether the task can build a supernet with `width` and `depth` multiplied."""
    proposal: ClassVar[str] = ""
    """`module:function` of what `dms-bench new` asks for an experiment on a network and data that a user brings (see
    `dms_bench.config.proposal`); empty where the task proposes none."""

    @classmethod
    def takes(cls, brought: Brought) -> bool:
        """Whether what a user brings looks like this task's, as far as names and kinds of files tell."""
        return False

    def label(self) -> str:
        """Return the task as the leaderboard prints it, for example `glyphs 32px`."""
        return self.kind

    def identity(self) -> Self:
        """Return the task with its usual values for what does not change a result: where data lie, who loads them.

        Trials that differ there alone are one trial. What these values are must never change.
        """
        return self

    def placed(self, roots: Mapping[str, str], workers: int | None) -> Self:
        """Return the task with its data where a site has them.

        Args:
            roots: folders, by the data's names on boards.
            workers: processes that load data; None leaves the task its own.
        """
        return self

    def local_content(self, supernet: SupernetSpec) -> dict[str, str]:
        """Return digests of what lies on this machine and decides a result: of files and folders named by their paths.

        Not among them are folders of data that are known by their names. What is not there is left out.

        Args:
            supernet: the network that is built for the task.

        Returns:
            field of a trial that names it -> digest (`dms_bench.config.content`).
        """
        checkpoint = digest_of_path(supernet.checkpoint) if supernet.checkpoint is not None else None
        found = {"supernet.checkpoint": checkpoint, "supernet.model": self.local_model(supernet)}
        return {field: digest for field, digest in found.items() if digest is not None}

    def local_model(self, supernet: SupernetSpec) -> str | None:
        """Return a digest of the file or folder that says what network this is; None where its name does."""
        return None

    def weight_files(self, supernet: SupernetSpec) -> list[Path]:
        """Return the files that a supernet's weights are read from, in an order that is always the same.

        Not among them are pretrained weights that the version of one of `libraries` decides.

        Raises:
            UserError: they cannot be had.
        """
        return [Path(os.path.expanduser(supernet.checkpoint))] if supernet.checkpoint is not None else []
