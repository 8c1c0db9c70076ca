"""Claims about a mean difference, decided together: true, false, equal within a margin, or open.

All that is said of a difference is read off one two-sided interval: above or below a bound where the whole interval
is, equal where it lies within the margin (two one-sided tests, Schuirmann 1987). What is said with the least chance of
error is the claim's p-value; over the claims of a family these are Holm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dms_bench.report.statistics import LEVEL, Difference, holm

Decision = Literal["true", "false", "equal", "open"]


@dataclass(frozen=True)
class Above:
    """The difference is above a bound."""

    bound: float = 0.0
    #: Where it is neither above nor below: smaller than this is called equal; None: never.
    margin: float | None = None

    def p_values(self, found: Difference) -> dict[Decision, float]:
        """Return the p-value of each decision, in the order in which they are preferred."""
        ways: dict[Decision, float] = {"true": _beyond(found, self.bound), "false": _beyond(-found, -self.bound)}
        return ways if self.margin is None else {**ways, "equal": _inside(found, self.margin)}


@dataclass(frozen=True)
class Within:
    """The difference is smaller than a margin, to either side."""

    margin: float

    def p_values(self, found: Difference) -> dict[Decision, float]:
        """Return the p-value of each decision."""
        return {"true": _inside(found, self.margin), "false": min(_beyond(way, self.margin) for way in (found, -found))}


Claim = Above | Within


@dataclass(frozen=True)
class Decided:
    """What became of a claim."""

    decision: Decision
    #: Corrected; None where it could not be tested.
    p: float | None
    #: Half width of an interval; those of a family all hold together in 95 % of all families.
    half: float | None


def decide(claims: Sequence[tuple[Claim, Difference | None]]) -> list[Decided]:
    """Decide a family of claims, with at most 5 % of families in which any decision is false."""
    ways = [claim.p_values(found) if found is not None and found.tested else {} for claim, found in claims]
    best = [min(own.values()) for own in ways if own]
    adjusted = iter(holm(best))
    decided = []
    for (_, found), own in zip(claims, ways, strict=True):
        if not own or found is None:
            decided.append(Decided("open", None, None))
            continue
        p, raw = next(adjusted), min(own.values())
        # Another decision than the surest may be preferred, if it stands the same correction.
        correction = p / raw if raw else len(best)
        stands = [way for way, other in own.items() if other * correction < LEVEL]
        decided.append(Decided(stands[0] if stands else "open", p, found.half(len(best))))
    return decided


def _beyond(found: Difference, bound: float) -> float:
    return min(1.0, 2 * found.p_above(bound))


def _inside(found: Difference, margin: float) -> float:
    return min(1.0, 2 * max(found.p_above(-margin), (-found).p_above(-margin)))
