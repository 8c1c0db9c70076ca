"""Specifications of the methods that train the structure by gradient descent."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dms_bench.config.base import Spec
from dms_bench.config.method import MethodSpec


class StructureOptimizer(Spec):
    """The optimiser of the structure parameters, separate from the weights'."""

    optimizer: Literal["adam", "sgd"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 5e-3


class GradientSpec(MethodSpec):
    """What all of them share: one search loop."""

    trains_in_search: ClassVar[bool] = True

    structure: StructureOptimizer = StructureOptimizer()
    #: Weight of the resource loss (equation 5).
    resource_weight: Annotated[float, Field(gt=0)] = 1.0
    #: Share of the search at whose end the importance has been observed, and the target begins to fall.
    observe_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    #: Share of the search at whose end the target has fallen (equation 10); then widths only are refined.
    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.8

    @model_validator(mode="after")
    def _phases_in_order(self) -> Self:
        if self.observe_share >= self.decay_share:
            shares = f"observe_share {self.observe_share} must be less than decay_share {self.decay_share}"
            raise ValueError(f"{shares}: the target falls between them")
        return self


class Dms(GradientSpec):
    """Differentiable model scaling (ICML 2024)."""

    implementation: ClassVar[str] = "dms_bench.methods.gradient.dms:DmsSearch"

    kind: Literal["dms"] = "dms"
    #: Factor on N in the soft mask's slope (equation 3); depth and heads use four times that.
    temperature: Annotated[float, Field(gt=0)] = 1.0
    importance: Literal["taylor", "snip", "fisher", "index"] = "taylor"
    #: Decay of the importance's moving average (equation 4); 0 keeps the last step only.
    importance_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    #: Rank the importance; without it the raw scores stand in for ranks (table 11), and the search fails.
    normalise: bool = True


class Get(GradientSpec):
    """Gradient estimation: a straight-through top-k."""

    implementation: ClassVar[str] = "dms_bench.methods.gradient.relaxed:GetSearch"

    kind: Literal["get"] = "get"


class GumbelSpec(GradientSpec):
    """What both methods that sample with Gumbel noise have."""

    #: fair: starts whole, cools down, pays for expected sizes.
    variant: Literal["as_released", "fair"] = "fair"
    #: Of the Gumbel softmax; where fair, at the end of the search.
    temperature: Annotated[float, Field(gt=0)] = 0.1

    def label(self) -> str:
        """Return the method with its variant: two methods, not two settings of one."""
        return f"{self.kind} {self.variant.replace('_', ' ')}"


class Mes(GumbelSpec):
    """Mask element selection: a Gumbel gate per element."""

    implementation: ClassVar[str] = "dms_bench.methods.gradient.relaxed:MesSearch"

    kind: Literal["mes"] = "mes"


class Sns(GumbelSpec):
    """Single number selection: a Gumbel choice of each unit's count."""

    implementation: ClassVar[str] = "dms_bench.methods.gradient.relaxed:SnsSearch"

    kind: Literal["sns"] = "sns"
