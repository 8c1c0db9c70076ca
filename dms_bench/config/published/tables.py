"""One published table: its claim, its rows, and how it is judged."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from dms_bench.config.base import Spec
from dms_bench.config.published.rows import Measure, PublishedRow
from dms_bench.config.published.rules import Rule
from dms_bench.config.suite import Name
from dms_bench.errors import nearest


class PublishedTable(Spec):
    """One table of the paper."""

    number: Annotated[int, Field(ge=1)]
    """Number of the table in the paper."""
    title: str
    """Title of the table."""
    claim: str
    """The claim in a sentence."""
    suite: Name = ""
    """Name of the suite that answers it; by default `table` and the number in two digits."""
    setting: dict[str, str] = Field(default_factory=dict)
    """What the paper says about the setting: heading -> text."""
    measures: Annotated[list[Measure], Field(min_length=1)]
    """The printed figures that ours are compared with; the first is the one that is judged."""
    rows: Annotated[list[PublishedRow], Field(min_length=1)]
    """The rows of the table, and ours."""
    rules: tuple[Rule, ...]
    """What the claim comes to."""
    doubts: tuple[Rule, ...] = ()
    """What a reader will ask and the claim does not say, such as whether controls do as well: judged like rules, but no
    part of the verdict."""
    remarks: tuple[str, ...] = ()
    """What else there is to say about the table."""

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
