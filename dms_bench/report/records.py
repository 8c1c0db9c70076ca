"""Trials as MLflow holds them: read once, a page at a time, into plain records."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dms_bench.errors import UserError, nearest
from dms_bench.tracking import connect, names, redact
from dms_bench.tracking.suite_run import trial_runs


@dataclass(frozen=True)
class Record:
    """One trial's run."""

    run_id: str
    name: str
    suite: str
    start: int
    tags: dict[str, str]
    params: dict[str, str]
    #: The last value of each metric.
    metrics: dict[str, float]
    artifacts: str

    @property
    def hash(self) -> str:
        """The trial's content hash."""
        return self.tags[names.TRIAL]

    @property
    def status(self) -> str:
        """`running`, `finished`, `failed` or `stopped`."""
        return self.tags.get(names.STATUS, names.RUNNING)

    @property
    def seed(self) -> int:
        """The trial's seed."""
        return int(self.tags[names.SEED])

    @property
    def environment(self) -> dict[str, str]:
        """Versions, commit, command and hardware."""
        return dict(json.loads(self.tags.get(names.ENVIRONMENT, "{}")))

    @property
    def value(self) -> float | None:
        """What the leaderboard ranks by, measured on the test split."""
        return self.metrics.get(names.measured(self.tags[names.METRIC]))


def read_records(uri: str, suite: str | None = None) -> list[Record]:
    """Return the trials of a suite, or of every suite in the store, one record per trial.

    Raises:
        UserError: no such store or suite, or it has no trials.
    """
    client = connect(uri)
    suites = suite_names(client)
    where = f"tracking {redact(uri)}"
    if suite is not None and suite not in suites:
        advice = nearest(suite, suites) if suites else "no suite has been run there"
        raise UserError(f"{where}: no suite {suite!r}; {advice}")
    chosen = [suite] if suite is not None else suites
    records = [_record(run, name) for name in chosen for run in trial_runs(client, name)]
    if not records:
        raise UserError(f"{where}: {f'suite {suite!r} has' if suite else 'there are'} no trials yet")
    return unique(records)


def suite_names(client: Any) -> list[str]:
    """Return the names of all suites in a store."""
    names_found: list[str] = []
    token = None
    while True:
        page = client.search_experiments(filter_string=f"tags.`{names.SUITE}` != ''", page_token=token)
        names_found += [experiment.name for experiment in page]
        token = page.token
        if not token:
            return sorted(names_found)


def unique(records: Iterable[Record]) -> list[Record]:
    """Keep one record per trial: a finished one if there is any, else the newest."""
    best: dict[tuple[str, str], Record] = {}
    for record in records:
        key = (record.suite, record.hash)
        rank = (record.status == names.FINISHED, record.start)
        if key not in best or rank > (best[key].status == names.FINISHED, best[key].start):
            best[key] = record
    return list(best.values())


def _record(run: Any, suite: str) -> Record:
    data = run.data
    return Record(
        run_id=run.info.run_id,
        name=run.info.run_name,
        suite=suite,
        start=run.info.start_time,
        tags=data.tags,
        params=data.params,
        metrics=data.metrics,
        artifacts=run.info.artifact_uri,
    )
