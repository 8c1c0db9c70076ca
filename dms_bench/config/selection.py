"""Some of a suite's trials: `--only experiment=en-b0 --only method=dms --only seed=0,1`.

What is not chosen is left out of what is run or shown. It changes no trial: hashes stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from dms_bench.errors import UserError, nearest

#: What trials are chosen by.
KEYS = ("experiment", "method", "budget", "seed")


class Known(NamedTuple):
    """The names of a trial (or row of a board), any of which a pattern may fit; none where every pattern fits."""

    experiment: tuple[str, ...]
    method: tuple[str, ...]
    budget: tuple[str, ...]
    seed: tuple[str, ...]


@dataclass(frozen=True)
class Selection:
    """Shell-style patterns by key: of each key that is given one must fit."""

    patterns: Mapping[str, tuple[str, ...]]

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def fits(self, known: Known, keys: Iterable[str] = KEYS) -> bool:
        """Tell whether something is chosen, by these keys alone."""
        return all(
            any(_fits(pattern, getattr(known, key)) for pattern in self.patterns[key])
            for key in keys
            if key in self.patterns
        )

    def check(self, there: Sequence[Known]) -> None:
        """Make sure that something is chosen of what is there.

        Raises:
            UserError: a pattern fits nothing, with what there is; or no one thing fits the patterns of all keys.
        """
        for key, patterns in self.patterns.items():
            for pattern in patterns:
                named = [names for known in there if (names := getattr(known, key))]
                if named and not any(_fits(pattern, names) for names in named):
                    choices = {names[0] for names in named}
                    raise UserError(f"--only {key}={pattern}: there is none; {nearest(pattern, choices)}")
        if not any(map(self.fits, there)):
            raise UserError(f"{self}: each fits something, and nothing fits all of them")

    def __str__(self) -> str:
        return " ".join(f"--only {key}={','.join(patterns)}" for key, patterns in self.patterns.items())


EVERYTHING = Selection({})


def read_selection(texts: Iterable[str]) -> Selection:
    """Read patterns `KEY=PATTERN[,PATTERN...]`; those of one key are alternatives.

    Raises:
        UserError: one is not of this form.
    """
    patterns: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        alternatives = tuple(part.strip() for part in value.split(","))
        if not equals or not all(alternatives):
            raise UserError(f"--only {text}: write KEY=PATTERN, such as method=dms or seed=0,1")
        if key not in KEYS:
            raise UserError(f"--only {text}: trials are not chosen by {key!r}; {nearest(key, KEYS)}")
        patterns[key] = (*patterns.get(key, ()), *alternatives)
    return Selection(patterns)


def budget_names(label: str) -> tuple[str, ...]:
    """Return how a budget may be called: `macs 30%` is also `30%`."""
    return (label, label.partition(" ")[2])


def _fits(pattern: str, names: Sequence[str]) -> bool:
    return not names or any(pattern == name or fnmatchcase(name, pattern) for name in names)
