"""The trials that a report is about."""

from __future__ import annotations

from collections.abc import Iterable

from dms_bench.errors import UserError, nearest
from dms_bench.tracking import names, shown
from dms_bench.tracking.reading import Record, read_trials, suite_names
from dms_bench.tracking.store import resolve_uri, sqlite_path

__all__ = ["Record", "read_records", "read_suites", "suites_in", "unique"]


def read_records(uri: str, suite: str | None = None) -> list[Record]:
    """Return the trials of a suite, or of every suite in the store, one record per trial.

    Raises:
        UserError: no such store or suite, or it has no trials.
    """
    suites = suite_names(uri)
    where = f"tracking {shown(uri)}"
    if suite is not None and suite not in suites:
        advice = nearest(suite, suites) if suites else "no suite has been run there"
        raise UserError(f"{where}: no suite {suite!r}; {advice}")
    records = read_trials(uri, [suite] if suite is not None else suites)
    if not records:
        raise UserError(f"{where}: {f'suite {suite!r} has' if suite else 'there are'} no trials yet")
    return unique(records)


def read_suites(uri: str, suites: Iterable[str]) -> list[Record]:
    """Return the trials of some suites, one record per trial.

    Raises:
        UserError: no such store.
    """
    selected = sorted(suites)
    return unique(read_trials(uri, selected)) if selected else []


def suites_in(uri: str) -> list[str]:
    """Return the names of all suites in a store, none where nothing has been run yet.

    Raises:
        UserError: the store does not answer.
    """
    path = sqlite_path(resolve_uri(uri))
    return [] if path is not None and not path.exists() else suite_names(uri)


def unique(records: Iterable[Record]) -> list[Record]:
    """Keep one record per trial: a finished one if there is any, else the newest."""
    best: dict[tuple[str, str], Record] = {}
    for record in records:
        key = (record.suite, record.hash)
        rank = (record.status == names.FINISHED, record.start)
        if key not in best or rank > (best[key].status == names.FINISHED, best[key].start):
            best[key] = record
    return list(best.values())
