"""The driver's side: one experiment per suite, one parent run per invocation, and what is done already."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dms_bench.config.suite import Suite
from dms_bench.errors import UserError
from dms_bench.tracking import names
from dms_bench.tracking.content import environment_tags
from dms_bench.tracking.reading import read_trials
from dms_bench.tracking.secrets import redacted, shown
from dms_bench.tracking.store import answering, connect, resolve_uri, sqlite_path

#: Lets MLflow's pages open the experiment as model training, not as generative AI.
_EXPERIMENT_KIND = "mlflow.experimentKind"


@dataclass(frozen=True)
class SuiteRun:
    """An invocation of a suite; the runs of its trials are its children."""

    uri: str
    experiment_id: str
    parent_id: str

    def finish(self, status: str = names.FINISHED) -> None:
        """Close the parent run as `finished`, `failed` or `stopped`.

        Raises:
            UserError: the store does not answer.
        """
        client = connect(self.uri)
        with answering(self.uri):
            client.set_tag(self.parent_id, names.STATUS, status)
            client.set_terminated(self.parent_id, names.MLFLOW_STATUS[status])


def open_suite(uri: str, suite: Suite, environment: dict[str, str]) -> SuiteRun:
    """Make database, experiment and parent run where they are missing. Call it before workers start.

    Raises:
        UserError: the store cannot be used, or the experiment was deleted.
    """
    uri = resolve_uri(uri)
    client = connect(uri, create=True)
    with answering(uri):
        return _open(client, uri, suite, environment)


def _open(client: Any, uri: str, suite: Suite, environment: dict[str, str]) -> SuiteRun:
    experiment_id = experiment_of(client, uri, suite.name)
    tags = {names.SUITE: suite.name, names.STATUS: names.RUNNING, **environment_tags(environment)}
    if suite.description:
        tags["mlflow.note.content"] = redacted(suite.description, suite.tracking)[:5000]
    run = client.create_run(experiment_id, tags=tags, run_name=suite.name)
    written = json.dumps(redacted(suite.model_dump(mode="json"), suite.tracking), indent=2, ensure_ascii=False)
    client.log_text(run.info.run_id, written, "suite.json")
    return SuiteRun(uri, experiment_id, run.info.run_id)


def experiment_of(client: Any, uri: str, name: str) -> str:
    """Return the id of a suite's experiment, which is made where it is missing.

    Raises:
        UserError: it was deleted.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return _create_experiment(client, uri, name)
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"tracking {shown(uri)}: experiment {name!r} was deleted there; restore it with "
            f"`mlflow experiments restore -x {experiment.experiment_id}` or rename the suite"
        )
    return str(experiment.experiment_id)


def finished(uri: str, suite_name: str) -> dict[str, str]:
    """Return `finished`, `failed` or `stopped` for each trial (by hash) that came to an end.

    A store or a suite that does not exist yet has none. Trials that were killed are left out: they go on.

    Raises:
        UserError: the store does not answer.
    """
    path = sqlite_path(resolve_uri(uri))
    if path is not None and not path.exists():
        return {}
    statuses: dict[str, str] = {}
    for trial in read_trials(uri, [suite_name], tags_only=True):
        status = trial.tags.get(names.STATUS, names.RUNNING)
        if status != names.RUNNING and statuses.get(trial.tags[names.TRIAL]) != names.FINISHED:
            statuses[trial.tags[names.TRIAL]] = status
    return statuses


def rename(uri: str, suite_name: str, trials: Mapping[str, str]) -> set[str]:
    """Give trials another hash, unless the store has one of that hash already.

    Args:
        uri: tracking URI.
        suite_name: of their suite.
        trials: former hash -> present hash.

    Returns:
        The present hashes of those that were there.

    Raises:
        UserError: the store does not answer.
    """
    path = sqlite_path(resolve_uri(uri))
    if path is not None and not path.exists():
        return set()
    recorded = read_trials(uri, [suite_name], tags_only=True)
    known = {trial.hash for trial in recorded}
    renamed = {trial.run_id: trial.hash for trial in recorded if trials.get(trial.hash, trial.hash) not in known}
    if renamed:
        client = connect(uri)
        with answering(uri):
            for run_id, former in renamed.items():
                client.set_tag(run_id, names.FORMER, former)
                client.set_tag(run_id, names.TRIAL, trials[former])
    return {trials[former] for former in renamed.values()}


def forget(uri: str, suite_name: str, trials: Collection[str]) -> int:
    """Delete the runs of these trials (hashes), so that they can be run afresh; returns how many there were.

    Raises:
        UserError: the store does not answer.
    """
    path = sqlite_path(resolve_uri(uri))
    if path is not None and not path.exists():
        return 0
    client = connect(uri)
    recorded = read_trials(uri, [suite_name], tags_only=True)
    forgotten = [trial for trial in recorded if trial.tags[names.TRIAL] in trials]
    with answering(uri):
        for trial in forgotten:
            client.delete_run(trial.run_id)
    return len(forgotten)


def _create_experiment(client: Any, uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    path = sqlite_path(uri)
    # Beside the database, not in whatever folder the driver happens to run; a server decides itself.
    location = (path.parent / "mlruns" / name).as_uri() if path is not None else None
    tags = {names.SUITE: name, _EXPERIMENT_KIND: "custom_model_development"}
    try:
        return str(client.create_experiment(name, artifact_location=location, tags=tags))
    except MlflowException:  # another driver was quicker
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise
        return str(experiment.experiment_id)
