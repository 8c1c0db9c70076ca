"""What is asked of a suite on the command line, beside its profile and its smoke variant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dms_bench.config.changes import Change, read_change
from dms_bench.config.selection import EVERYTHING, Selection, read_selection


@dataclass(frozen=True)
class Request:
    """Changes to a suite, and which of its trials are meant."""

    changes: tuple[Change, ...] = ()
    selection: Selection = EVERYTHING

    @property
    def words(self) -> list[str]:
        """The options of a command that asks for the same."""
        words = [word for change in self.changes for word in ("--set", change.text)]
        return words + [
            word
            for key, patterns in self.selection.patterns.items()
            for word in ("--only", f"{key}={','.join(patterns)}")
        ]


NOTHING = Request()


def read_request(changes: Iterable[str] = (), only: Iterable[str] = ()) -> Request:
    """Read the values of `--set` and `--only`.

    Raises:
        UserError: one is not as it should be.
    """
    return Request(tuple(read_change(text) for text in changes), read_selection(only))
