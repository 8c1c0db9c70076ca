"""A suite file: experiments, their sweeps, and where results go."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from dms_bench.spec.base import Spec
from dms_bench.spec.trial import Resources

#: Names become folder names and MLflow tags: they cannot leave the storage folder.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Scheduler(Spec):
    """Early stopping of sampled trials."""

    kind: Literal["asha"] = "asha"
    grace_epochs: Annotated[int, Field(ge=1)] = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class Uniform(Spec):
    """A real number drawn between two bounds, on a linear or logarithmic scale."""

    low: float
    high: float
    log: bool = False


class Sampling(Spec):
    """A sampled sweep: `samples` trials whose fields are drawn from `space`."""

    algorithm: Literal["random", "optuna"] = "random"
    samples: Annotated[int, Field(ge=1)]
    #: Dotted field of the trial -> a list of choices or a range.
    space: dict[str, list[Any] | Uniform]
    scheduler: Scheduler | None = None
    seed: int = 0


class Sweep(Spec):
    """Every combination of `grid`, each sampled where `sample` is given."""

    #: Dotted field of the trial -> values.
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    sample: Sampling | None = None


class Experiment(Spec):
    """One trial template and its sweep. `base` holds the trial's fields, validated when resolved."""

    name: Name
    sweep: Sweep = Sweep()
    base: dict[str, Any] = Field(default_factory=dict)


class Suite(Spec):
    """What a suite file says."""

    name: Name
    description: str = ""
    #: MLflow tracking URI.
    tracking: str = "sqlite:///mlflow.db"
    #: Folder for checkpoints and finished trials.
    storage: str = "runs"
    resources: Resources = Resources()
    experiments: Annotated[list[Experiment], Field(min_length=1)]
