"""A suite: experiments, their sweeps, and where results go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, PrivateAttr, StringConstraints, field_validator

from dms_bench.config.base import Spec
from dms_bench.config.problems import NAME
from dms_bench.config.selection import EVERYTHING, Selection
from dms_bench.config.site import SiteData
from dms_bench.config.sweep import Sweep
from dms_bench.config.trial import Resources

Name = Annotated[str, StringConstraints(pattern=NAME)]
#: Methods by their label or kind; the first's value less the second's is what is compared with zero.
Compared = Annotated[
    list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None,
    Field(min_length=1, exclude_if=lambda value: value is None),
]


class Experiment(Spec):
    """The fields of a trial, as written, and the sweep over them.

    The fields are typed when the sweep is resolved: only then does every trial have them all.
    """

    name: Name
    """Name of the experiment; no two of a suite have the same."""
    sweep: Sweep = Sweep()
    """Which fields vary, and over which values; by default the experiment is one trial."""
    compare: Compared = None
    """Pairs of methods, by label or kind, to be told apart where `seed` is `{until: decided}`; by default what the
    suite says, else every method with `dms` and with `random`."""
    task: Any = None
    """The trials' task, by its kind or as a mapping."""
    supernet: Any = None
    """The trials' supernet."""
    pipeline: Any = None
    """The trials' pipeline: DMSnp, DMSp or DMSp-."""
    budget: Any = None
    """The trials' budget."""
    method: Any = None
    """The trials' search method, by its kind or as a mapping."""
    pretrain: Any = None
    """The recipe by which the supernet is trained before the search."""
    search: Any = None
    """The recipe of the search."""
    retrain: Any = None
    """The recipe by which the searched network is trained."""
    repair: Any = None
    """What makes up for the cut before anything is trained again: none, bias or least_squares."""
    seed: Any = None
    """The trials' seed; as a rule it is swept over instead."""
    resources: Any = None
    """What each trial runs on, laid over the suite's own `resources`."""

    @property
    def settings(self) -> dict[str, Any]:
        """The trial's fields that were written."""
        return {field: getattr(self, field) for field in TRIAL_FIELDS if field in self.model_fields_set}


#: The fields of an experiment that are fields of its trials.
TRIAL_FIELDS = tuple(field for field in Experiment.model_fields if field not in ("name", "sweep", "compare"))


class Suite(Spec):
    """What a suite file says."""

    written_beside: ClassVar[tuple[str, ...]] = ("defaults", "smoke", "profiles")

    name: Name
    """Name of the suite: of its MLflow experiment and its leaderboard. Letters, digits, `_`, `.` and `-`, at most
    64."""
    description: str = ""
    """What the suite is for, in a sentence or two; `dms-bench ls suites` shows it."""
    version: Annotated[int, Field(ge=1, le=10**6)] = 1
    """Version of the benchmark that the suite is, higher whenever its trials come to mean something else without a word
    of theirs being changed. Trials of another version are others: they are run anew, and never on one board."""
    tracking: str = "sqlite:///mlflow.db"
    """MLflow tracking URI that results are written to; by default a file in the working folder."""
    storage: str = "runs"
    """Folder for checkpoints and finished trials, from which an interrupted run goes on."""
    resources: Resources = Resources()
    """What a trial runs on, unless its experiment says otherwise."""
    compare: Compared = None
    """Pairs of methods that experiments compare until they are decided, unless they say otherwise."""
    experiments: Annotated[list[Experiment], Field(min_length=1)]
    """The experiments, at least one; each is a trial or a sweep over trials."""

    # What is asked for, and not what the suite is: in no file of it, and in none of its records.
    _selection: Selection = PrivateAttr(default=EVERYTHING)
    _data: SiteData = PrivateAttr(default=SiteData())

    @property
    def selection(self) -> Selection:
        """Which of the trials are meant; all of them where it is empty."""
        return self._selection

    def narrowed(self, selection: Selection) -> Self:
        """Return the suite with fewer trials."""
        copy = self.model_copy()
        copy._selection = selection
        return copy

    @property
    def data(self) -> SiteData:
        """Where this site has the data of its trials."""
        return self._data

    def placed(self, data: SiteData) -> Self:
        """Return the suite with its data where a site has them."""
        copy = self.model_copy()
        copy._data = data
        return copy

    @field_validator("storage")
    @classmethod
    def _is_a_path(cls, storage: str) -> str:
        try:
            os.fsencode(Path(storage).expanduser())
        except RuntimeError as error:  # there is no such user
            raise ValueError(f"{storage!r}: {error}") from error
        if not storage or "\0" in storage:
            raise ValueError(f"{storage!r} is no path of a folder")
        return storage

    @field_validator("experiments")
    @classmethod
    def _names_differ(cls, experiments: list[Experiment]) -> list[Experiment]:
        names = [experiment.name for experiment in experiments]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two experiments have the name {twice[0]!r}")
        return experiments
