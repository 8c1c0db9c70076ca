"""Finding a trial's run without asking the store for all that it has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dms_bench.tracking import names
from dms_bench.tracking.store import opened_for_reading, sqlite_path

#: By the keys of both tables, however many runs there are.
_QUERY = (
    "SELECT tags.key, tags.value FROM runs JOIN tags USING (run_uuid) WHERE run_uuid = ? AND experiment_id = ? "
    "AND lifecycle_stage = 'active' AND tags.key IN (?, ?)"
)


@dataclass(frozen=True)
class Remembered:
    """The id of a trial's run as the trial's folder keeps it.

    A search among 10,000 runs takes a tenth of a second, and longer the more there are; a run whose id is known is
    one look-up. The file is empty from before the run is created until its id is known: whoever finds it so searches.
    """

    #: The file; None where nothing is kept.
    file: Path | None
    #: The store had no run of this trial when the suite began, so that without a file there is none to search for.
    new: bool = False

    def run_id(self) -> str | None:
        """Return the id, empty where a run may have been created without; None where there is no file."""
        try:
            return None if self.file is None else self.file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None

    def about_to_create(self) -> None:
        """Note that a run may exist from now on."""
        self.keep("")

    def keep(self, run_id: str) -> None:
        """Keep an id. A folder that cannot be written costs no more than a search next time."""
        if self.file is None or self.run_id() == run_id:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(run_id)
        except OSError:
            return


@dataclass(frozen=True)
class Found:
    """A trial's run, and how far it has come."""

    run_id: str
    #: Of the trial: `running`, `finished`, ...
    status: str

    @property
    def over(self) -> bool:
        """Whether nothing more is to be written to it."""
        return self.status in (names.FINISHED, names.STOPPED)


def find_run(client: Any, uri: str, experiment_id: str, trial: str, remembered: Remembered) -> Found | None:
    """Return a trial's run, None where there is none; of several one that is over.

    Args:
        client: of the store.
        uri: of the store.
        experiment_id: MLflow's, of the suite.
        trial: the trial's hash.
        remembered: what its folder says.
    """
    run_id = remembered.run_id()
    if run_id:
        tags = _tags(client, uri, experiment_id, run_id)
        if tags is not None and tags.get(names.TRIAL) == trial:
            return Found(run_id, tags.get(names.STATUS, names.RUNNING))
    elif run_id is None and remembered.new:
        return None
    runs = client.search_runs([experiment_id], filter_string=f"tags.`{names.TRIAL}` = '{trial}'")
    found = [Found(run.info.run_id, run.data.tags.get(names.STATUS, names.RUNNING)) for run in runs]
    return next(iter(sorted(found, key=lambda run: not run.over)), None)


def _tags(client: Any, uri: str, experiment_id: str, run_id: str) -> dict[str, str] | None:
    """Return which trial's run this is and its status; None where the experiment has no such run, or a deleted one."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

    path = sqlite_path(uri)
    if path is not None:  # MLflow makes an object of everything that is known of a run
        with opened_for_reading(path) as database:
            rows = database.execute(_QUERY, (run_id, experiment_id, names.TRIAL, names.STATUS)).fetchall()
        return dict(rows) or None
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in map(ErrorCode.Name, (INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST)):
            return None
        raise
    ours = run.info.lifecycle_stage == "active" and run.info.experiment_id == experiment_id
    return dict(run.data.tags) if ours else None
