"""Specifications of the methods that train the structure by gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic.json_schema import SkipJsonSchema

from dms_bench.config.base import Spec
from dms_bench.config.budget import BudgetSpec, in_order
from dms_bench.config.method import MethodSpec, Use


def _written_as(value: Any) -> str:
    return "list" if isinstance(value, list | tuple) else "flag"


#: Whether one search is for all budgets of the sweep; resolved, the budgets that it is for.
_Shared = Annotated[
    Annotated[bool, Tag("flag")] | Annotated[SkipJsonSchema[tuple[BudgetSpec, ...]], Field(min_length=1), Tag("list")],
    Discriminator(_written_as),
]


class StructureOptimizer(Spec):
    """The optimiser of the structure parameters, separate from the weights'."""

    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser of the structure parameters: Adam or SGD of PyTorch, with its default settings."""
    lr: Annotated[float, Field(gt=0)] = 5e-3
    """Learning rate of the structure parameters; the same during the whole search."""


class GradientSpec(MethodSpec):
    """What all of them share: one search loop."""

    trains_in_search: ClassVar[bool] = True
    draws_on: ClassVar[tuple[Use, ...]] = ("weights", "data", "gradients", "training")

    structure: StructureOptimizer = StructureOptimizer()
    """The optimiser of the structure parameters, separate from the weights'."""
    # Not part of a content where it is not given: trials from before there was a choice keep their hashes.
    budget: Annotated[
        Literal["penalty", "projected", "lagrangian"], Field(exclude_if=lambda value: value == "penalty")
    ] = "penalty"
    """How the search is brought to its budget. penalty: by a resource loss above the falling target (equation 6).
    projected: every step shifts all units by one number, so that what the search pays for is the falling target; there
    is no resource loss, and gradients move along what costs the same. lagrangian: by multipliers, which rise for as
    long as the falling target is missed."""
    resource_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the resource loss beside the task's loss (equation 5); without meaning where the budget is
    not a penalty."""
    observe_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the search before which nothing is decided: the importance is collected and the target is the whole
    supernet's cost."""
    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the search at whose end the target has fallen to the budget (equation 10); from then on the depth is
    fixed and only widths are refined."""
    skip_zeros: Annotated[bool, Field(exclude_if=lambda value: not value)] = False
    """Whether the search runs what masks make zero no longer, by a smaller twin of the network: the same search, in
    less time where groups are wide. Blocks go when the depth is fixed, elements before (with dms alone)."""
    budgets_in_one: Annotated[_Shared, Field(exclude_if=lambda value: value is False)] = False
    """Whether one search finds the networks for all budgets of the sweep. Its target falls to the smallest; as it
    passes one of the others, the network for that is cut. `router` is asked for all of them in turn. Each trial is
    charged its share of the search."""

    @model_validator(mode="after")
    def _phases_in_order(self) -> Self:
        if self.observe_share >= self.decay_share:
            shares = f"observe_share {self.observe_share} must be less than decay_share {self.decay_share}"
            raise ValueError(f"{shares}: the target falls between them")
        return self

    def label(self) -> str:
        """Return the method, and how it is brought to its budget where not as published."""
        usual = type(self).model_fields["budget"].default
        brought = self.kind if self.budget == usual else f"{self.kind} {self.budget}"
        return f"{brought}{self._in_one}"

    @property
    def _in_one(self) -> str:
        return ", budgets in one" if self.budgets_in_one else ""

    @property
    def searched_budgets(self) -> tuple[BudgetSpec, ...]:
        """The budgets that one search is for, the largest first; none where every budget has its own."""
        return self.budgets_in_one if isinstance(self.budgets_in_one, tuple) else ()

    def for_budgets(self, budgets: Sequence[BudgetSpec]) -> Self:
        """Return the method with these budgets where it is to search for all of the sweep's."""
        return self.model_copy(update={"budgets_in_one": tuple(budgets)}) if self.budgets_in_one is True else self

    def canonical(self) -> Self:
        """Return the method without a weight that weighs nothing; budgets in order, one alone as it is without."""
        budgets = in_order(self.searched_budgets)
        shared: dict[str, Any] = {} if self.budgets_in_one is True else {"budgets_in_one": len(budgets) > 1 and budgets}
        return self.model_copy(update=shared | ({} if self.budget == "penalty" else {"resource_weight": 1.0}))


class Dms(GradientSpec):
    """Differentiable model scaling (ICML 2024)."""

    implementation: ClassVar[str] = "dms_bench.methods.gradient.dms:DmsSearch"

    kind: Literal["dms"] = "dms"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Factor on N, the elements of a unit, in the slope of the soft mask (equation 3); larger is harder. Depth, heads
    and coarse groups use four times that."""
    importance: Literal["taylor", "snip", "fisher", "index"] = "taylor"
    """Score of an element, from its mask m and the gradient g of the task's loss by it. taylor: (m g)^2; snip: |m g|;
    fisher: g^2; index: no score, the first elements matter most."""
    block_importance: Annotated[
        Literal["taylor", "snip", "fisher", "index"] | None, Field(exclude_if=lambda value: value is None)
    ] = None
    """Score of blocks, where it is not that of channels. fisher lets a block return: its score is other than zero where
    its mask is."""
    depth_share: Annotated[float | None, Field(gt=0, le=1, exclude_if=lambda value: value is None)] = None
    """Share of the search at whose end the depth is decided, where that comes before the widths: between observe_share
    and this, widths stay whole and the depth alone follows the target. By default both follow it until decay_share."""
    importance_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the importance's moving average over steps (equation 4); 0 keeps the last step only."""
    normalise: bool = True
    """Rank the importance (equation 2); without it the raw scores stand in for ranks (table 11), and the search
    fails."""

    @model_validator(mode="after")
    def _depth_in_order(self) -> Self:
        if self.depth_share is not None and not self.observe_share < self.depth_share <= self.decay_share:
            raise ValueError(
                f"depth_share {self.depth_share} must lie after observe_share {self.observe_share}, and not after "
                f"decay_share {self.decay_share}"
            )
        return self


class Get(GradientSpec):
    """Gradient estimation: a straight-through top-k."""

    implementation: ClassVar[str] = "dms_bench.methods.gradient.relaxed:GetSearch"

    kind: Literal["get"] = "get"


class GumbelSpec(GradientSpec):
    """What both methods that sample with Gumbel noise have."""

    variant: Literal["as_released", "fair"] = "fair"
    """as_released: as published with DMS. fair: starts at the whole supernet, cools down, pays for expected instead of
    most probable sizes."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Temperature of the Gumbel softmax; the fair variant starts 50 times as hot and ends there."""

    @model_validator(mode="after")
    def _projects_smooth_costs(self) -> Self:
        if self.budget == "projected" and self.variant == "as_released":
            raise ValueError(
                "variant 'as_released' pays for its most probable sizes, which jump: no budget can be held by shifting "
                "them; take variant 'fair', or budget 'penalty'"
            )
        return self

    def label(self) -> str:
        """Return the method with its variant: two methods, not two settings of one."""
        label = f"{self.kind} {self.variant.replace('_', ' ')}"
        return f"{label if self.budget == 'penalty' else f'{label} {self.budget}'}{self._in_one}"


class Mes(GumbelSpec):
    """Mask element selection: a Gumbel gate per element."""

    implementation: ClassVar[str] = "dms_bench.methods.gradient.relaxed:MesSearch"

    kind: Literal["mes"] = "mes"


class Sns(GumbelSpec):
    """Single number selection: a Gumbel choice of each unit's count."""

    implementation: ClassVar[str] = "dms_bench.methods.gradient.relaxed:SnsSearch"

    kind: Literal["sns"] = "sns"


class LagrangianSpec(GradientSpec):
    """Methods whose authors bring them to their budget by multipliers."""

    budget: Annotated[
        Literal["penalty", "projected", "lagrangian"], Field(exclude_if=lambda value: value == "lagrangian")
    ] = "lagrangian"
    """How the search is brought to its budget. lagrangian: by multipliers, which rise for as long as the falling target
    is missed. projected: every step shifts all elements by one number, so that what the search pays for is the falling
    target. penalty: by a resource loss above the falling target (equation 6)."""


class L0Optimizer(StructureOptimizer):
    """The optimiser of hard-concrete gates."""

    lr: Annotated[float, Field(gt=0)] = 0.1
    """Learning rate of the gates; the same during the whole search."""


class L0(LagrangianSpec):
    """Hard-concrete gates, one per element, as in Sheared LLaMA."""

    implementation: ClassVar[str] = "dms_bench.methods.gradient.gates:L0Search"

    kind: Literal["l0"] = "l0"
    structure: L0Optimizer = L0Optimizer()
    """The optimiser of the gates, separate from the weights'."""


class DdpOptimizer(StructureOptimizer):
    """The optimiser of deterministic gates."""

    lr: Annotated[float, Field(gt=0)] = 2e-2
    """Learning rate of the gates; the same during the whole search. Its authors' rate of 5e-3 is for 1,000 steps."""


class Ddp(LagrangianSpec):
    """Deterministic differentiable pruning: gates without noise, and apart from them a score of what is kept."""

    implementation: ClassVar[str] = "dms_bench.methods.gradient.gates:DdpSearch"

    kind: Literal["ddp"] = "ddp"
    structure: DdpOptimizer = DdpOptimizer()
    """The optimiser of the gates, separate from the weights'."""


class LapSum(GradientSpec):
    """A soft top-k whose masks sum to k exactly, of learnt scores."""

    implementation: ClassVar[str] = "dms_bench.methods.gradient.gates:LapSumSearch"

    kind: Literal["lapsum"] = "lapsum"
    alpha: Annotated[float, Field(ge=1e-3, le=1e3)] = 0.1
    """Scale of the Laplace distribution, in the unit of the scores; smaller is harder."""


class Router(GradientSpec):
    """A small network chooses among levels of every unit, as in Nemotron Elastic."""

    implementation: ClassVar[str] = "dms_bench.methods.gradient.gates:RouterSearch"

    kind: Literal["router"] = "router"
    budget: Annotated[Literal["penalty", "lagrangian"], Field(exclude_if=lambda value: value == "penalty")] = "penalty"  # type: ignore[assignment]
    """How the search is brought to its budget. penalty: by a resource loss above the falling target (equation 6).
    lagrangian: by multipliers, which rise for as long as the falling target is missed."""
    levels: Annotated[int, Field(ge=2, le=1024)] = 8
    """Numbers of elements that each width group may keep, evenly apart."""
