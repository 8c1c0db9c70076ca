"""What is asked of a suite on the command line, beside its profile and its smoke variant."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dms_bench.config.changes import Change, read_change
from dms_bench.config.selection import EVERYTHING, Selection, read_selection
from dms_bench.config.site import NOWHERE, Site, own_site_file, read_site

#: MLflow's own variable, which every command goes by unless it is told otherwise.
TRACKING = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Request:
    """Changes to a suite, which of its trials are meant, and where they run."""

    changes: tuple[Change, ...] = ()
    selection: Selection = EVERYTHING
    site: Site = NOWHERE
    #: Where the site was read.
    site_path: Path | None = None
    #: The tracking URI of the environment, which is the site's.
    tracking: str | None = None

    @property
    def words(self) -> list[str]:
        """The options of a command that asks for the same, but for the site."""
        words = [word for change in self.changes for word in ("--set", change.text)]
        return words + [
            word
            for key, patterns in self.selection.patterns.items()
            for word in ("--only", f"{key}={','.join(patterns)}")
        ]


NOTHING = Request()


def read_request(
    changes: Iterable[str] | None = None,
    only: Iterable[str] | None = None,
    site: Path | None = None,
    *,
    here: bool = False,
) -> Request:
    """Read the values of `--set`, `--only` and `--site`.

    Args:
        changes: values of `--set`.
        only: values of `--only`.
        site: a site file.
        here: where none is given, take the user's own of this machine, if there is one.

    Raises:
        UserError: one is not as it should be.
    """
    path = site if site is not None or not here else own_site_file()
    known = read_site(path) if path is not None else NOWHERE
    tracking = os.environ.get(TRACKING) or None
    return Request(
        tuple(read_change(text) for text in changes or ()),
        read_selection(only or ()),
        known if tracking is None else known.model_copy(update={"tracking": tracking}),
        path,
        tracking,
    )
