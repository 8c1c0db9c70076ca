"""What comparisons that chose their number of seeds came to, as notes below a leaderboard."""

from __future__ import annotations

from collections.abc import Iterable

from dms_bench.tracking import read_decided


def decided_notes(uri: str, suites: Iterable[str]) -> list[str]:
    """Return a line per comparison, and one on how they were decided; nothing where seeds were given.

    Raises:
        UserError: there is no such store, or it does not answer.
    """
    notes = []
    for suite in suites:
        for family in read_decided(uri, suite):
            several = f"{len(family.pairs)} comparison{'s' * (len(family.pairs) != 1)} together"
            notes.append(
                f"Seeds were added until decided, {family.at_most} at most; the probability of any false difference "
                f"among {several} is at most {family.alpha:.0%}, and likewise of any false equality. Intervals have "
                "the same correction; those in the table, and its Δ, have none."
            )
            notes += [family.line(pair) for pair in family.pairs]
    return list(dict.fromkeys(notes))
