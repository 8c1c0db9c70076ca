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
        self._lines: dict[str, None] = {}

    @contextmanager
    def of(self, experiment: str) -> Iterator[None]:
        """Note a UserError inside as one of an experiment, and go on behind."""
        try:
            yield
        except UserError as error:
            name = f"experiment {experiment!r}: "
            self._lines.update(dict.fromkeys(f"{name}{line.removeprefix(name)}" for line in str(error).splitlines()))

    def check(self) -> None:
        """Raise a UserError with a line for each thing that was noted, if anything was."""
        if self._lines:
            raise UserError("\n".join(self._lines))


def nearest(name: str, choices: Iterable[str], limit: int = 3) -> str:
    """Return a phrase naming the choices closest to `name`, or all of them when they are few."""
    options = sorted(set(choices))
    close = difflib.get_close_matches(name, options, n=limit, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(option) for option in close) + "?"
    if len(options) <= 12:
        return "choose from " + ", ".join(repr(option) for option in options)
    return f"{len(options)} choices, none similar"
