"""Specifications of the controls: what a search has to beat, and the ceiling."""

from __future__ import annotations

from typing import ClassVar, Literal

from dms_bench.spec.method import MethodSpec


class Uniform(MethodSpec):
    """One ratio for every width group, full depth."""

    implementation: ClassVar[str] = "dms_bench.methods.uniform:UniformSearch"

    kind: Literal["uniform"] = "uniform"


class Random(MethodSpec):
    """A random architecture of the space at the budget: the control."""

    implementation: ClassVar[str] = "dms_bench.methods.random:RandomSearch"

    kind: Literal["random"] = "random"


class Supernet(MethodSpec):
    """The supernet itself, not cut: the ceiling."""

    implementation: ClassVar[str] = "dms_bench.methods.supernet:KeepSupernet"
    uses_budget: ClassVar[bool] = False

    kind: Literal["supernet"] = "supernet"
