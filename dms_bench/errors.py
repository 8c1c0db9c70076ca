"""The two ways in which a run can end badly, several of the first at once, and nearest names for both."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something the user wrote or asked for cannot be done; the message says what and where.

    The command line prints the message without a traceback and exits with 2.
    """


class TrialFailure(Exception):  # noqa: N818 - a trial fails, a user errs
    """A trial could not finish (NaN losses, a damaged checkpoint, ...); other trials go on.

    The trial is recorded as failed with this message, and the command line exits with 1.
    """


class Refusals:
    """Gathers what is wrong with the experiments of a suite, so that all of it is said at once."""

    def __init__(self) -> None:
        #: What is wrong -> the experiments in which it is, both in the order in which they were met.
        self._wrong: dict[str, dict[str, None]] = {}

    @contextmanager
    def of(self, experiment: str) -> Iterator[None]:
        """Note a UserError inside as one of an experiment, and go on behind."""
        try:
            yield
        except UserError as error:
            for line in str(error).splitlines():
                text = line.removeprefix(f"experiment {experiment!r}: ")
                self._wrong.setdefault(text, {})[experiment] = None

    def check(self) -> None:
        """Raise a UserError with a line for each thing that was noted, if anything was."""
        if self._wrong:
            raise UserError("\n".join(f"{_named(list(names))}: {text}" for text, names in self._wrong.items()))


def _named(experiments: list[str]) -> str:
    """Name the first experiments, and count the others: what is written in `defaults` is wrong in all of them."""
    named = ", ".join(map(repr, experiments[:3]))
    more = f" and {len(experiments) - 3} more" if len(experiments) > 3 else ""
    return f"experiment{'s' * (len(experiments) > 1)} {named}{more}"


def close(name: str, choices: Iterable[str], limit: int = 3) -> list[str]:
    """Return the choices that a misspelt name may have been, the likeliest first."""
    return difflib.get_close_matches(name, sorted(set(choices)), n=limit, cutoff=0.5)


def nearest(name: str, choices: Iterable[str], limit: int = 3) -> str:
    """Return a phrase naming the choices closest to `name`, or all of them when they are few."""
    options = sorted(set(choices))
    if not options:
        return "there is none"
    meant = close(name, options, limit)
    if meant:
        return "did you mean " + " or ".join(repr(option) for option in meant) + "?"
    if len(options) <= 16:
        return "choose from " + ", ".join(repr(option) for option in options)
    return f"{len(options)} choices, none similar"
