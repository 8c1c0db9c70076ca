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
    """Name of the experiment in the table's suite."""
    method: str
    """Kind of the method."""
    where: dict[str, str | bool | float] = Field(default_factory=dict)
    """Dotted field of the trial -> the value that it must have."""
    measured_at: Literal["test", "search"] = "test"
    """`test`: the final network on the test split. `search`: the network as the search left it, under its own masks and
    before the cut to the budget, on the validation split."""


class Figures(Spec):
    """Printed figures; the names have the units."""

    top1_percent: Percent | None = None
    """Top-1 accuracy, in percent."""
    map50_95_percent: Percent | None = None
    """mAP50-95, in percent."""
    wikitext2_perplexity: Positive | None = None
    """Perplexity per token on WikiText-2."""
    ptb_perplexity: Positive | None = None
    """Perplexity per token on the Penn Treebank."""
    boolq_percent: Percent | None = None
    """Zero-shot accuracy on BoolQ, in percent."""
    winogrande_percent: Percent | None = None
    """Zero-shot accuracy on WinoGrande, in percent."""
    arc_easy_percent: Percent | None = None
    """Zero-shot accuracy on ARC-easy, in percent."""
    arc_challenge_percent: Percent | None = None
    """Zero-shot accuracy on ARC-challenge, in percent."""
    macs_g: Positive | None = None
    """Multiply-accumulates of the network, in 1e9."""
    supernet_macs_g: Positive | None = None
    """Multiply-accumulates of the supernet, in 1e9."""
    params_m: Positive | None = None
    """Parameters of the network, in 1e6."""
    params_b: Positive | None = None
    """Parameters of the network, in 1e9."""
    structural_parameters: Annotated[int, Field(gt=0)] | None = None
    """Number of parameters that the search trains for the structure."""
    latency_ms: Positive | None = None
    """Latency of the network, in milliseconds."""
    public_gpu_days: NotNegative | None = None
    """Search cost that is paid once for a method, in GPU days."""
    public_tpu_days: NotNegative | None = None
    """Search cost that is paid once for a method, in TPU days."""
    private_gpu_days: NotNegative | None = None
    """Search cost of every searched network, in GPU days."""
    public_gpu_hours: NotNegative | None = None
    """Search cost that is paid once for a method, in GPU hours."""
    private_gpu_hours: NotNegative | None = None
    """Search cost of every searched network, in GPU hours."""
    total_gpu_days: NotNegative | None = None
    """Search cost where the paper does not tell public from private, in GPU days."""
    pretrain_gmac_epochs: NotNegative | None = None
    """Cost of pretraining: 1e9 multiply-accumulates of a forward pass x epochs."""
    search_gmac_epochs: NotNegative | None = None
    """Cost of the search: 1e9 multiply-accumulates of a forward pass x epochs."""

    def search_days(self) -> float | None:
        """Return the whole search cost in device days (TPU days count as days); None where none is printed."""
        days = [self.public_gpu_days, self.public_tpu_days, self.private_gpu_days, self.total_gpu_days]
        hours = [self.public_gpu_hours, self.private_gpu_hours]
        parts = [value for value in days if value is not None] + [value / 24 for value in hours if value is not None]
        return sum(parts) if parts else None


class PublishedRow(Figures):
    """One row of a table, a control of ours, or a result that came later."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    """Name of the row in rules and figures: small letters, digits, `.` and `-`."""
    name: str
    """Name of the row as it is shown."""
    kind: Literal["gradient", "zero-shot", "one-shot", "multi-shot"] | None = None
    """How the paper classes the method."""
    distilled: bool = False
    """Whether the printed network was trained by distillation."""
    level: Literal["low", "high"] | None = None
    """How the paper classes the search cost."""
    supernet: str | None = None
    """The supernet, as printed."""
    search_epochs: str | None = None
    """Length of the search, as printed."""
    cost_is_at_least: bool = False
    """Whether the printed cost is a lower bound."""
    target_reached: bool = True
    """False where the paper prints that the search did not reach its target, and therefore no figure."""
    source: str | None = None
    """Where the figure comes from, if not from the paper."""
    remark: str | None = None
    """What else there is to say about the row."""
    later: bool = False
    """Not in the paper: a stronger result that was left out of it or came later."""
    control: bool = False
    """Not in the paper: a control that we add."""
    full_only: bool = False
    """A control that the proxy does not have."""
    tolerance: str | None = None
    """Name of one of the document's tolerances."""
    ours: Selector | None = None
    """Which of our trials answer the row; none where we have none."""

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
    """Name of the printed figure, a field of `Figures`."""
    metric: str
    """What our trials call it."""
    proxy_metric: str | None = None
    """What the proxy's trials call what they measure instead, where that has another name."""
    higher_is_better: bool = True
    """Direction of the measure."""

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.field not in Figures.model_fields:
            raise ValueError(f"{self.field!r} is no figure; {nearest(self.field, Figures.model_fields)}")
        return self


class Tolerance(Spec):
    """How far a mean may be from the printed figure, in its own unit, and why."""

    points: Positive
    """How far a mean may be from the printed figure, in the figure's own unit."""
    why: str
    """The reason for that distance."""
