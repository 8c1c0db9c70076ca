"""Specifications of the built-in search methods. Torch-free: reading a suite never imports it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dms_bench.spec.base import Spec
from dms_bench.spec.method import MethodSpec


class StructureOptimizer(Spec):
    """The optimiser of the structure parameters, separate from the weights'."""

    optimizer: Literal["adam", "sgd"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 5e-3


class Dms(MethodSpec):
    """Differentiable model scaling (ICML 2024)."""

    implementation: ClassVar[str] = "dms_bench.methods.dms:DmsSearch"
    trains_in_search: ClassVar[bool] = True

    kind: Literal["dms"] = "dms"
    #: Factor on N in the soft mask's slope (equation 3); depth and heads use four times that.
    temperature: Annotated[float, Field(gt=0)] = 1.0
    importance: Literal["taylor", "snip", "fisher", "index"] = "taylor"
    #: Decay of the importance's moving average (equation 4); 0 keeps the last step only.
    importance_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    structure: StructureOptimizer = StructureOptimizer()
    #: Weight of the resource loss (equation 5).
    resource_weight: Annotated[float, Field(gt=0)] = 1.0
    #: Share of the search in which the target falls (equation 10); then widths only are refined.
    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.8


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
