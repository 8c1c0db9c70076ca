"""Specifications of the methods that sample architectures and score them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dms_bench.spec.method import MethodSpec

Score = Literal["params", "grad_norm", "snip", "synflow", "naswot", "zico", "zen"]


class Sampling(MethodSpec):
    """What both samplers have."""

    implementation: ClassVar[str] = "dms_bench.methods.sampling:SamplingSearch"

    score: Score = "zico"
    #: Architectures that are scored.
    candidates: Annotated[int, Field(ge=1)] = 64


class RandomSearch(Sampling):
    """The best of many random architectures, by a training-free score."""

    kind: Literal["random_search"] = "random_search"


class Evolution(Sampling):
    """Steady-state evolution by a training-free score: children of good parents replace the worst."""

    kind: Literal["evolution"] = "evolution"
    #: Architectures that live at a time; the first ones are random.
    population: Annotated[int, Field(ge=2)] = 16
    #: Chance of every width and depth to be drawn anew in a child.
    mutation: Annotated[float, Field(gt=0, le=1)] = 0.1
