"""Trials as a store holds them, read in bulk.

Of 10,000 trials MLflow's search makes a million objects, which takes half a minute. A SQLite store is therefore
read by plain queries on MLflow's tables; other stores page by page through MLflow.
"""

from __future__ import annotations

import gc
import json
import math
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dms_bench.config.task import Unit
from dms_bench.errors import UserError
from dms_bench.tracking import names
from dms_bench.tracking.secrets import shown
from dms_bench.tracking.store import answering, connect, has_tables, opened_for_reading, resolve_uri, sqlite_path

#: Runs of a request; few large pages, as the database sorts all runs for each.
_PAGE = 5000
#: Seconds to wait for a run that is writing.
_PATIENCE = 30.0


@dataclass(frozen=True)
class Record:
    """One trial's run."""

    run_id: str
    name: str
    suite: str
    #: Milliseconds since 1970.
    start: int
    #: Where its artifacts lie.
    artifacts: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    #: The last value of each metric.
    metrics: dict[str, float] = field(default_factory=dict)

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
    def version(self) -> int:
        """Version of the suite that the trial belongs to."""
        return int(self.tags.get(names.VERSION, "1"))

    @property
    def edition(self) -> str:
        """The suite, with its version where that is not the first: trials of two are never put together."""
        return self.suite if self.version == 1 else f"{self.suite} v{self.version}"

    @property
    def environment(self) -> dict[str, str]:
        """Versions, commit, command and hardware."""
        return dict(json.loads(self.tags.get(names.ENVIRONMENT, "{}")))

    @property
    def weights(self) -> str:
        """Hash of the files that the supernet's weights came from, empty where they came from none."""
        return self.environment.get(names.WEIGHTS, "")

    @property
    def value(self) -> float | None:
        """What the leaderboard ranks by, measured on the test split."""
        return self.metrics.get(names.measured(self.tags[names.METRIC]))

    @property
    def validation(self) -> float | None:
        """The same measure on the validation split: what settings are chosen by."""
        return self.metrics.get(names.validated(self.tags[names.METRIC]))

    def unit(self, measure: str) -> Unit:
        """Return how a measure of the task is shown."""
        stored = self.tags.get(names.UNITS)
        units: dict[str, Any] = names.KNOWN_UNITS if stored is None else json.loads(stored)
        return Unit(*units.get(measure, ()))

    @property
    def search_load(self) -> float | None:
        """What the search's own network costs, as a share of its target, before the final cut; None if not logged.

        Of several constraints the one that is missed most.
        """
        loads = []
        for name, target in self.metrics.items():
            bound = name.removeprefix("search/target_")
            cost = self.metrics.get(f"search/hard_{bound}")
            if bound != name and cost is not None and target > 0:
                loads.append(cost / target)
        return max(loads, default=None)


def suite_names(uri: str) -> list[str]:
    """Return the names of all suites in a store.

    Raises:
        UserError: there is no such store, or it does not answer.
    """
    path = _existing(uri)
    if path is not None:
        query = (
            "SELECT name FROM experiments JOIN experiment_tags AS tags USING (experiment_id) "
            "WHERE tags.key = ? AND tags.value != '' AND lifecycle_stage = 'active' ORDER BY name"
        )
        with _queries(uri, path) as database:
            return [name for (name,) in database.execute(query, (names.SUITE,))]
    client, token, suites = connect(uri), None, []
    while True:
        with answering(uri):
            page = client.search_experiments(filter_string=f"tags.`{names.SUITE}` != ''", page_token=token)
        suites += [experiment.name for experiment in page]
        token = page.token
        if not token:
            return sorted(suites)


def read_trials(uri: str, suites: Collection[str], *, tags_only: bool = False) -> list[Record]:
    """Return the trials of some suites, none of one that does not exist.

    Args:
        uri: tracking URI.
        suites: names of suites.
        tags_only: leave out params and metrics, where that saves time.

    Raises:
        UserError: there is no such store, or it does not answer.
    """
    path = _existing(uri)
    with _collector_paused():
        if path is None:
            client = connect(uri)
            with answering(uri):
                return [trial for suite in suites for trial in _through_mlflow(client, suite)]
        with _queries(uri, path) as database:
            return [trial for suite in suites for trial in _from_tables(database, suite, tags_only)]


def values_of(uri: str, suite: str) -> dict[str, float]:
    """Return what the leaderboard ranks by of each finished trial, by its hash.

    Raises:
        UserError: there is no such store, or it does not answer.
    """
    finished = (trial for trial in read_trials(uri, [suite]) if trial.status == names.FINISHED)
    return {trial.hash: value for trial in finished if (value := trial.value) is not None}


def latest_tags(uri: str, suite: str, beginning: str) -> dict[str, str]:
    """Return the tags that begin so, of the newest run of a suite that has any.

    Raises:
        UserError: there is no such store, or it does not answer.
    """
    path = _existing(uri)
    if path is not None:
        query = (
            "SELECT run_uuid, tags.key, tags.value FROM tags JOIN runs USING (run_uuid) "
            "JOIN experiments USING (experiment_id) WHERE experiments.name = ? AND runs.lifecycle_stage = 'active' "
            "AND substr(tags.key, 1, ?) = ? ORDER BY start_time DESC, run_uuid"
        )
        with _queries(uri, path) as database:
            rows = database.execute(query, (suite, len(beginning), beginning)).fetchall()
        return {key: value for run, key, value in rows if run == rows[0][0]}
    client = connect(uri)
    with answering(uri):
        experiment = client.get_experiment_by_name(suite)
        runs = (
            []
            if experiment is None
            else client.search_runs(
                [experiment.experiment_id],
                f"tags.`{beginning}000` != ''",
                order_by=["attributes.start_time DESC"],
                max_results=1,
            )
        )
    return {name: value for run in runs for name, value in run.data.tags.items() if name.startswith(beginning)}


def _from_tables(database: sqlite3.Connection, suite: str, tags_only: bool) -> list[Record]:
    def pairs(table: str) -> str:  # a row per run: rows of single values would take most of the time
        return f"(SELECT json_group_object(key, value) FROM {table} AS own WHERE own.run_uuid = runs.run_uuid)"

    runs = (
        f"SELECT run_uuid, runs.name, start_time, artifact_uri, {pairs('tags')}, "
        f"{'NULL' if tags_only else pairs('params')} FROM runs JOIN experiments USING (experiment_id) "
        "JOIN tags USING (run_uuid) WHERE experiments.name = ? AND runs.lifecycle_stage = 'active' AND tags.key = ?"
    )
    records = {
        run: Record(run, name, suite, start, artifacts, json.loads(tags), json.loads(params or "{}"))
        for run, name, start, artifacts, tags, params in database.execute(runs, (suite, names.TRIAL))
    }
    if not tags_only:
        metrics = (
            "SELECT run_uuid, key, value, is_nan FROM latest_metrics JOIN runs USING (run_uuid) "
            "JOIN experiments USING (experiment_id) WHERE experiments.name = ?"
        )
        for run, key, value, is_nan in database.execute(metrics, (suite,)):
            if run in records:  # else one that has begun since
                records[run].metrics[key] = math.nan if is_nan else value
    return list(records.values())


def _through_mlflow(client: Any, suite: str) -> Iterator[Record]:
    experiment = client.get_experiment_by_name(suite)
    token = None
    while experiment is not None:
        page = client.search_runs([experiment.experiment_id], max_results=_PAGE, page_token=token)
        for run in page:
            # Telling the trials apart here is cheaper than a filter, which is a join in the database.
            if names.TRIAL in run.data.tags:
                info, data = run.info, run.data
                yield Record(
                    info.run_id, info.run_name, suite, info.start_time, info.artifact_uri,
                    data.tags, data.params, data.metrics,
                )  # fmt: skip
        token = page.token
        if not token:
            return


def _existing(uri: str) -> Path | None:
    """Return the file of a SQLite store, None for other stores.

    Raises:
        UserError: the file is not there, or no MLflow store.
    """
    uri = resolve_uri(uri)
    path = sqlite_path(uri)
    if path is not None and not has_tables(path):
        raise UserError(f"tracking {shown(uri)}: no results there; run a suite first or name another store")
    return path


@contextmanager
def _queries(uri: str, path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database for reading; a run may be writing to it.

    Raises:
        UserError: it is damaged, locked for long or of another MLflow version.
    """
    try:
        with opened_for_reading(path, _PATIENCE) as database:
            yield database
    except sqlite3.Error as error:
        raise UserError(f"tracking {shown(uri)}: cannot be read: {error}") from error


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause garbage collection: with millions of live objects it took three quarters of the reading time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
