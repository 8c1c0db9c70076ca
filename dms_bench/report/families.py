"""Comparisons that are made together, and what each of them shows when all are counted."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

from dms_bench.report.statistics import LEVEL, Difference, holm


class Corrected(NamedTuple):
    """One comparison of a family."""

    #: Holm's p-value of no difference; None where it cannot be tested.
    p: float | None
    #: Half width of an interval; those of a family all hold together in 95 % of all families (Bonferroni).
    half: float | None

    @property
    def decided(self) -> bool:
        """Whether there is a difference, at 5 % of false claims in the family."""
        return self.p is not None and self.p < LEVEL


#: Of a comparison that was not made.
UNTESTED = Corrected(None, None)


class Family(NamedTuple):
    """The comparisons of one table."""

    comparisons: Mapping[Hashable, Corrected]
    #: How many of them were tested.
    size: int


def family(differences: Mapping[Hashable, Difference | None]) -> Family:
    """Correct comparisons for their number.

    Args:
        differences: by what tells a comparison from another, so that one which is shown twice counts once.
    """
    tested = {key: found for key, found in differences.items() if found is not None and found.tested}
    adjusted = holm([found.p() for found in tested.values()])
    corrected = {
        key: Corrected(p, found.half(len(tested))) for (key, found), p in zip(tested.items(), adjusted, strict=True)
    }
    return Family({key: corrected.get(key, UNTESTED) for key in differences}, len(tested))
