"""What comparisons that choose their number of seeds have come to, as the parent run of a suite keeps it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dms_bench.tracking import names
from dms_bench.tracking.reading import latest_tags
from dms_bench.tracking.store import answering, connect

#: The longest value that every store takes for a tag.
_LONGEST = 5000


@dataclass(frozen=True)
class DecidedPair:
    """A comparison of two methods."""

    name: str
    #: `different`, `equal`, `undecided` (out of seeds) or `open` (to be gone on with).
    outcome: str
    #: Seeds after which it was decided, and those of them that gave a pair.
    seeds: int
    pairs: int
    #: Mean difference in the measure's unit, and its interval with the family's correction.
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class DecidedFamily:
    """Comparisons that were decided together."""

    experiment: str
    margin: float
    at_most: int
    #: Probability of any false claim.
    alpha: float
    decimals: int
    pairs: tuple[DecidedPair, ...]

    def line(self, pair: DecidedPair) -> str:
        """Say in a line what a comparison came to."""
        interval = ""
        if pair.mean is not None:
            interval = f" {pair.mean:+.{self.decimals}f}"
            if pair.low is not None and pair.high is not None:
                interval += f" [{pair.low:+.{self.decimals}f}, {pair.high:+.{self.decimals}f}]"
        seeds = f"{pair.seeds} seed{'s' * (pair.seeds != 1)}"
        if pair.pairs < pair.seeds:
            seeds += f" ({pair.seeds - pair.pairs} without a pair, as a trial failed)"
        found = {
            "different": f"decided after {seeds}",
            "equal": f"equal within {self.margin:g}, decided after {seeds}",
            "undecided": f"undecided after {seeds}",
            "open": f"not decided yet, after {seeds}",
        }[pair.outcome]
        return f"{self.experiment}: {pair.name}:{interval} {found}"


def write_decided(uri: str, run_id: str, families: Sequence[DecidedFamily]) -> None:
    """Keep what the families of a suite came to with one of its parent runs.

    Raises:
        UserError: the store does not answer.
    """
    client = connect(uri)
    text = json.dumps([asdict(family) for family in families])
    parts = [text[start : start + _LONGEST] for start in range(0, len(text), _LONGEST)]
    with answering(uri):
        for number, part in enumerate(parts):
            client.set_tag(run_id, f"{names.DECIDED}.{number:03d}", part)


def read_decided(uri: str, suite: str) -> list[DecidedFamily]:
    """Return what the newest run of a suite that said anything about it came to; nothing where none has.

    Raises:
        UserError: there is no such store, or it does not answer.
    """
    parts = latest_tags(uri, suite, f"{names.DECIDED}.")
    return [_family(each) for each in json.loads("".join(parts[name] for name in sorted(parts)) or "[]")]


def _family(content: dict[str, Any]) -> DecidedFamily:
    return DecidedFamily(**content | {"pairs": tuple(DecidedPair(**pair) for pair in content["pairs"])})
