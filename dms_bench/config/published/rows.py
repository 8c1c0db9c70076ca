"""A row of a published table: its printed figures, and which of our trials answer it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dms_bench.config.base import Spec
from dms_bench.config.suite import Name
from dms_bench.errors import nearest

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Selector(Spec):
    """Which trials of a suite answer a row: those of an experiment and method that agree in some fields."""

    experiment: Name
    #: The method's kind.
    method: str
    #: Dotted field of the trial -> its value.
    where: dict[str, str | bool | float] = Field(default_factory=dict)
    #: `test`: the final network on the test split. `search`: the network as the search left it, under its own masks
    #: and before the cut to the budget, on the validation split.
    measured_at: Literal["test", "search"] = "test"


class Figures(Spec):
    """Printed figures; the names have the units."""

    top1_percent: Percent | None = None
    map50_95_percent: Percent | None = None
    wikitext2_perplexity: Positive | None = None
    ptb_perplexity: Positive | None = None
    boolq_percent: Percent | None = None
    winogrande_percent: Percent | None = None
    arc_easy_percent: Percent | None = None
    arc_challenge_percent: Percent | None = None
    #: 1e9 multiply-accumulates.
    macs_g: Positive | None = None
    supernet_macs_g: Positive | None = None
    #: 1e6 and 1e9 parameters.
    params_m: Positive | None = None
    params_b: Positive | None = None
    structural_parameters: Annotated[int, Field(gt=0)] | None = None
    latency_ms: Positive | None = None
    #: Search cost: public is paid once for a method, private for every searched network.
    public_gpu_days: NotNegative | None = None
    public_tpu_days: NotNegative | None = None
    private_gpu_days: NotNegative | None = None
    public_gpu_hours: NotNegative | None = None
    private_gpu_hours: NotNegative | None = None
    total_gpu_days: NotNegative | None = None
    #: 1e9 multiply-accumulates of a forward pass x epochs.
    pretrain_gmac_epochs: NotNegative | None = None
    search_gmac_epochs: NotNegative | None = None

    def search_days(self) -> float | None:
        """Return the whole search cost in device days (TPU days count as days); None where none is printed."""
        days = [self.public_gpu_days, self.public_tpu_days, self.private_gpu_days, self.total_gpu_days]
        hours = [self.public_gpu_hours, self.private_gpu_hours]
        found = [value for value in days if value is not None] + [value / 24 for value in hours if value is not None]
        return sum(found) if found else None


class PublishedRow(Figures):
    """One row of a table, a control of ours, or a result that came later."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    name: str
    kind: Literal["gradient", "zero-shot", "one-shot", "multi-shot"] | None = None
    distilled: bool = False
    #: How the paper classes the search cost.
    level: Literal["low", "high"] | None = None
    supernet: str | None = None
    search_epochs: str | None = None
    #: The printed cost is a lower bound.
    cost_is_at_least: bool = False
    #: False where the paper prints that the search did not reach its target, and therefore no figure.
    target_reached: bool = True
    #: Where the figure comes from, if not from the paper.
    source: str | None = None
    remark: str | None = None
    #: Not in the paper: a stronger result that was left out of it or came later; or a control that we add.
    later: bool = False
    control: bool = False
    #: A control that the proxy does not have.
    full_only: bool = False
    #: Name of one of the document's tolerances.
    tolerance: str | None = None
    ours: Selector | None = None

    @model_validator(mode="after")
    def _whose_it_is(self) -> Self:
        if self.later and not self.source:
            raise ValueError(f"row {self.id!r} is not the paper's: give its 'source'")
        if self.control and self.ours is None:
            raise ValueError(f"row {self.id!r} is a control of ours: give 'ours'")
        if self.full_only and not self.control:
            raise ValueError(f"row {self.id!r} is the paper's: 'full_only' is for controls")
        return self


class Measure(Spec):
    """A printed figure, and what our trials call it."""

    field: str
    metric: str
    #: What the proxy's trials call what they measure instead, where that has another name.
    proxy_metric: str | None = None
    higher_is_better: bool = True

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.field not in Figures.model_fields:
            raise ValueError(f"{self.field!r} is no figure; {nearest(self.field, Figures.model_fields)}")
        return self


class Tolerance(Spec):
    """How far a mean may be from the printed figure, in its own unit, and why."""

    points: Positive
    why: str
