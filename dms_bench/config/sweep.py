"""Sweeps: which fields of a trial vary, and over what."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PlainValidator, Tag, model_validator

from dms_bench.config.base import Spec
from dms_bench.config.problems import show


class Scheduler(Spec):
    """Early stopping of sampled trials."""

    kind: Literal["asha"] = "asha"
    """asha: Ray Tune's asynchronous successive halving."""
    grace_epochs: Annotated[int, Field(ge=1)] = 1
    """Epochs of retraining that every trial gets before it may be stopped."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """Whenever the epochs of retraining have grown by this factor, only about one in this many trials goes on."""


def _number(value: Any) -> int | float:
    """Take a number as it is written, whole or not; YAML reads `1e-4` as text."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ValueError(f"{show(value)} is not a number")
    return number


Number = Annotated[int | float, PlainValidator(_number, json_schema_input_type=float)]


class Range(Spec):
    """A number between two bounds (both included), on a linear or logarithmic scale.

    Whole numbers are drawn when both bounds are written as whole numbers.
    """

    low: Number
    """Smallest value that is drawn."""
    high: Number
    """Largest value that is drawn."""
    log: bool = False
    """Draw on a logarithmic scale; needs `low` above 0."""

    @property
    def whole(self) -> bool:
        """Whether whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {show(self.low)} must be below high {show(self.high)}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {show(self.low)} must be above 0 on a logarithmic scale")
        return self


Values = Annotated[list[Any], Field(min_length=1)]
Drawn = Annotated[
    Annotated[Values, Tag("choices")] | Annotated[Range, Tag("range")],
    Discriminator(lambda value: "choices" if isinstance(value, list) else "range"),
]


class Sampling(Spec):
    """A sampled sweep: `samples` trials whose fields are drawn from `space`."""

    algorithm: Literal["random", "optuna"] = "random"
    """How values are drawn: at random, or by Optuna's TPE, which learns from the trials that have ended."""
    samples: Annotated[int, Field(ge=1)]
    """Number of trials for each point of the grid."""
    space: Annotated[dict[str, Drawn], Field(min_length=1)]
    """What is drawn from: dotted field of the trial -> a list of choices, or a range."""
    scheduler: Scheduler | None = None
    """Early stopping of trials that do badly on the validation split; none unless given."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the values that are drawn; it is not the trial's."""


class UntilDecided(Spec):
    """Seeds 0, 1, ... that are added until every comparison is decided, or there are no more."""

    until: Literal["decided"]
    """decided: until each comparison of the experiment is found different, or equal within the margin."""
    at_most: Annotated[int, Field(ge=2, le=50)] = 20
    """Seeds after which a comparison that is not decided stays so."""
    at_least: Annotated[int, Field(ge=2, le=50)] = 3
    """Seeds before anything is decided; every method is run with these."""
    margin: Annotated[float, Field(gt=0)]
    """Differences below this count as none, in the unit of the task's measure: points of accuracy, say."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.at_most < self.at_least:
            raise ValueError(f"at_most {self.at_most} must not be below at_least {self.at_least}")
        return self


def _kind_of_axis(value: Any) -> str:
    """Tell which of the two an entry of the grid is meant to be; a list where it is neither."""
    meant = isinstance(value, UntilDecided) or (isinstance(value, dict) and UntilDecided.model_fields.keys() & value)
    return "decided" if meant else "values"


Axis = Annotated[
    Annotated[Values, Tag("values")] | Annotated[UntilDecided, Tag("decided")], Discriminator(_kind_of_axis)
]


class Sweep(Spec):
    """Every combination of `grid`, each sampled where `sample` is given."""

    grid: dict[str, Axis] = Field(default_factory=dict)
    """Dotted field of the trial -> list of values; every combination is a trial. Only `seed` may be `{until: decided,
    margin: ...}` instead: seeds are then added until the comparisons between methods are decided."""
    sample: Sampling | None = None
    """Draw further fields at random or by Optuna, for every combination of the grid."""

    @property
    def until_decided(self) -> UntilDecided | None:
        """How seeds are added, where they are not a list."""
        seeds = self.grid.get("seed")
        return seeds if isinstance(seeds, UntilDecided) else None
