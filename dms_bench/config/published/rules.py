"""Questions that a table's trials are asked: what its claim comes to, and what it leaves open."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dms_bench.config.base import Spec
from dms_bench.config.published.rows import NotNegative, Positive


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
