"""Specifications of the methods that train the structure by gradient descent."""

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
