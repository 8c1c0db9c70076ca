"""Questions that a table's trials are asked: what its claim comes to, and what it leaves open."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dms_bench.config.base import Spec
from dms_bench.config.published.rows import NotNegative, Positive


class Better(Spec):
    """One row is ahead of another by more than `by`, in the table's first measure."""

    kind: Literal["better"]
    """`better`: one row is ahead of another."""
    row: str
    """Id of the row that should be ahead."""
    than: str
    """Id of the row that should be behind."""
    by: NotNegative = 0.0
    """By more than this, in the unit of the table's first measure."""


class Equal(Spec):
    """Two rows differ by less than `within`."""

    kind: Literal["equal"]
    """`equal`: two rows come to the same."""
    row: str
    """Id of one row."""
    to: str
    """Id of the other."""
    within: Positive
    """They differ by less than this, in the unit of the table's first measure."""


class Cheaper(Spec):
    """One row's search costs less than another's, counting the stages that the paper counts."""

    kind: Literal["cheaper"]
    """`cheaper`: one row's search costs less."""
    row: str
    """Id of the row that should cost less."""
    than: str
    """Id of the row that should cost more."""
    stages: tuple[str, ...] = ("pretrain", "predictor", "search")
    """Stages whose cost is counted."""


class Misses(Spec):
    """The search ends above its target."""

    kind: Literal["misses_target"]
    """`misses_target`: the search ends above its target."""
    row: str
    """Id of the row."""


class Reaches(Spec):
    """The search ends at its target."""

    kind: Literal["reaches_target"]
    """`reaches_target`: the search ends at its target."""
    row: str
    """Id of the row."""


Rule = Annotated[Better | Equal | Cheaper | Misses | Reaches, Field(discriminator="kind")]
