"""A suite: experiments, their sweeps, and where results go."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator

from dms_bench.config.base import Spec
from dms_bench.config.sweep import Sweep
from dms_bench.config.trial import Resources

#: Names become folder names and MLflow tags: they cannot leave the storage folder.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Experiment(Spec):
    """The fields of a trial, as written, and the sweep over them.

    The fields are typed when the sweep is resolved: only then does every trial have them all.
    """

    name: Name
    sweep: Sweep = Sweep()
    task: Any = None
    supernet: Any = None
    pipeline: Any = None
    budget: Any = None
    method: Any = None
    pretrain: Any = None
    search: Any = None
    retrain: Any = None
    seed: Any = None
    resources: Any = None

    @property
    def settings(self) -> dict[str, Any]:
        """The trial's fields that were written."""
        return {field: getattr(self, field) for field in TRIAL_FIELDS if field in self.model_fields_set}


#: The fields of an experiment that are fields of its trials.
TRIAL_FIELDS = tuple(field for field in Experiment.model_fields if field not in ("name", "sweep"))


class Suite(Spec):
    """What a suite file says."""

    name: Name
    description: str = ""
    #: MLflow tracking URI.
    tracking: str = "sqlite:///mlflow.db"
    #: Folder for checkpoints and finished trials.
    storage: str = "runs"
    #: What a trial runs on, unless its experiment says otherwise.
    resources: Resources = Resources()
    experiments: Annotated[list[Experiment], Field(min_length=1)]

    @field_validator("experiments")
    @classmethod
    def _names_differ(cls, experiments: list[Experiment]) -> list[Experiment]:
        names = [experiment.name for experiment in experiments]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two experiments have the name {twice[0]!r}")
        return experiments
