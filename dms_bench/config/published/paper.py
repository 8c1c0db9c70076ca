"""All tables of a paper, and what its figures draw."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from dms_bench.config.base import Spec
from dms_bench.config.document import read_document
from dms_bench.config.problems import problems_of
from dms_bench.config.published.rows import Tolerance
from dms_bench.config.published.tables import PublishedTable
from dms_bench.errors import UserError, nearest


class Paper(Spec):
    """Where the figures come from."""

    title: str
    """Title of the paper."""
    venue: str
    """Where it appeared."""
    url: str
    """Its address."""


class ScatterFigure(Spec):
    """Accuracy against MACs and against search cost, of the rows of some tables."""

    kind: Literal["scatter"]
    """`scatter`: accuracy against MACs and against search cost."""
    number: Annotated[int, Field(ge=1)]
    """Number of the figure in the paper."""
    title: str
    """Title of the figure."""
    tables: Annotated[list[int], Field(min_length=1)]
    """Numbers of the tables whose rows are drawn."""


class WidthsFigure(Spec):
    """Widths of a searched network's layers above those of a designed one: two rows of a table."""

    kind: Literal["widths"]
    """`widths`: layer widths of two networks."""
    number: Annotated[int, Field(ge=1)]
    """Number of the figure in the paper."""
    title: str
    """Title of the figure."""
    table: int
    """Number of the table that both rows are in."""
    searched: str
    """Id of the row with the searched network."""
    designed: str
    """Id of the row with the designed network."""


Figure = Annotated[ScatterFigure | WidthsFigure, Field(discriminator="kind")]


class Published(Spec):
    """All tables of a paper, and what its figures draw."""

    paper: Paper
    """Where the figures come from."""
    tolerances: dict[str, Tolerance]
    """Name -> how far our mean may be from a printed figure."""
    tables: Annotated[list[PublishedTable], Field(min_length=1)]
    """The paper's tables."""
    figures: tuple[Figure, ...] = ()
    """The paper's figures that are drawn anew."""

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
