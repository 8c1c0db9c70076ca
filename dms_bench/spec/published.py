"""What a paper published, as data: figures, sources, which of our trials answer them, how the claim is judged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from dms_bench.errors import UserError, nearest
from dms_bench.spec.base import Spec
from dms_bench.spec.document import read_document
from dms_bench.spec.problems import problems_of
from dms_bench.spec.suite import Name

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


class Better(Spec):
    """One row is ahead of another by more than `by`, in the table's first measure."""

    kind: Literal["better"]
    row: str
    than: str
    by: NotNegative = 0.0


class Equal(Spec):
    """Two rows differ by less than `within`."""

    kind: Literal["equal"]
    row: str
    to: str
    within: Positive


class Cheaper(Spec):
    """One row's search costs less than another's, counting the stages that the paper counts."""

    kind: Literal["cheaper"]
    row: str
    than: str
    stages: tuple[str, ...] = ("pretrain", "predictor", "search")


class Misses(Spec):
    """The search ends above its target."""

    kind: Literal["misses_target"]
    row: str


class Reaches(Spec):
    """The search ends at its target."""

    kind: Literal["reaches_target"]
    row: str


Rule = Annotated[Better | Equal | Cheaper | Misses | Reaches, Field(discriminator="kind")]


class Tolerance(Spec):
    """How far a mean may be from the printed figure, in its own unit, and why."""

    points: Positive
    why: str


class PublishedTable(Spec):
    """One table of the paper."""

    number: Annotated[int, Field(ge=1)]
    title: str
    #: The claim in a sentence.
    claim: str
    #: Name of the suite that answers it; by default `table` and the number in two digits.
    suite: Name = ""
    setting: dict[str, str] = Field(default_factory=dict)
    #: The first is the one that is judged.
    measures: Annotated[list[Measure], Field(min_length=1)]
    rows: Annotated[list[PublishedRow], Field(min_length=1)]
    #: What the claim comes to.
    rules: tuple[Rule, ...]
    #: What a reader will ask and the claim does not say, such as whether controls do as well: judged like rules, but no
    #: part of the verdict.
    doubts: tuple[Rule, ...] = ()
    remarks: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _own_suite(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("number"), int):
            return {"suite": f"table{value['number']:02}", **value}
        return value

    @model_validator(mode="after")
    def _rows_are_known(self) -> Self:
        known = Counter(row.id for row in self.rows)
        if known.most_common(1)[0][1] > 1:
            raise ValueError(f"two rows have the id {known.most_common(1)[0][0]!r}")
        ours = {row.id for row in self.rows if row.ours is not None and not row.full_only}
        for rule in (*self.rules, *self.doubts):
            for name in (value for key, value in rule if key in ("row", "than", "to")):
                if name not in known:
                    raise ValueError(f"a rule names the row {name!r}; {nearest(name, known)}")
                if name not in ours:
                    raise ValueError(f"a rule judges the row {name!r}, which has no trials of ours in both profiles")
        return self

    def in_proxy(self) -> Self:
        """Return the table as the proxy answers it: by its own measures, without rows that it does not run."""
        measures = [
            measure.model_copy(update={"metric": measure.proxy_metric}) if measure.proxy_metric else measure
            for measure in self.measures
        ]
        rows = [row for row in self.rows if not row.full_only]
        return self.model_copy(update={"measures": measures, "rows": rows})

    def row(self, name: str) -> PublishedRow:
        """Return a row by its id."""
        return next(row for row in self.rows if row.id == name)


class Paper(Spec):
    """Where the figures come from."""

    title: str
    venue: str
    url: str


class ScatterFigure(Spec):
    """Accuracy against MACs and against search cost, of the rows of some tables."""

    kind: Literal["scatter"]
    number: Annotated[int, Field(ge=1)]
    title: str
    tables: Annotated[list[int], Field(min_length=1)]


class WidthsFigure(Spec):
    """Widths of a searched network's layers above those of a designed one: two rows of a table."""

    kind: Literal["widths"]
    number: Annotated[int, Field(ge=1)]
    title: str
    table: int
    searched: str
    designed: str


Figure = Annotated[ScatterFigure | WidthsFigure, Field(discriminator="kind")]


class Published(Spec):
    """All tables of a paper, and what its figures draw."""

    paper: Paper
    tolerances: dict[str, Tolerance]
    tables: Annotated[list[PublishedTable], Field(min_length=1)]
    figures: tuple[Figure, ...] = ()

    @model_validator(mode="after")
    def _figures_are_of_the_tables(self) -> Self:
        rows = {table.number: {row.id for row in table.rows if row.ours is not None} for table in self.tables}
        for figure in self.figures:
            for number in figure.tables if isinstance(figure, ScatterFigure) else (figure.table,):
                if number not in rows:
                    raise ValueError(f"figure {figure.number} draws table {number}, which is not there")
            if isinstance(figure, WidthsFigure):
                for name in (figure.searched, figure.designed):
                    if name not in rows[figure.table]:
                        advice = nearest(name, rows[figure.table])
                        raise ValueError(f"figure {figure.number}: no row {name!r} with trials of ours; {advice}")
        return self

    @model_validator(mode="after")
    def _tolerances_are_given(self) -> Self:
        for table in self.tables:
            for row in table.rows:
                where = f"table {table.number}, row {row.id!r}"
                if row.tolerance is not None and row.tolerance not in self.tolerances:
                    advice = nearest(row.tolerance, self.tolerances)
                    raise ValueError(f"{where}: no tolerance {row.tolerance!r}; {advice}")
                printed = any(getattr(row, measure.field) is not None for measure in table.measures)
                if printed and row.ours is not None and row.tolerance is None:
                    raise ValueError(f"{where}: a row that our trials answer needs a 'tolerance'")
        numbers = Counter(table.number for table in self.tables)
        if numbers.most_common(1)[0][1] > 1:
            raise ValueError(f"table {numbers.most_common(1)[0][0]} occurs twice")
        return self

    def table(self, number: int) -> PublishedTable:
        """Return a table by its number.

        Raises:
            UserError: the paper has no such table here.
        """
        for table in self.tables:
            if table.number == number:
                return table
        known = ", ".join(str(table.number) for table in self.tables)
        raise UserError(f"there is no table {number}; choose from {known}")

    def figure(self, number: int) -> Figure:
        """Return a figure by its number.

        Raises:
            UserError: it is not among those that are drawn.
        """
        for figure in self.figures:
            if figure.number == number:
                return figure
        known = ", ".join(str(figure.number) for figure in self.figures) or "none"
        raise UserError(f"there is no figure {number}; choose from {known}")


def load_published(path: str | Path) -> Published:
    """Read a file of published figures.

    Raises:
        UserError: it cannot be read or is not valid; a line per problem with the field's path.
    """
    document = read_document(Path(path))
    try:
        return Published.model_validate(document)
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems_of(error, document))) from None
