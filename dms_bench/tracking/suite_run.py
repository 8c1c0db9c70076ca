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
from dms_bench.tracking.secrets import redact, redacted, shown
from dms_bench.tracking.store import answering, connect, resolve_uri, sqlite_path
from dms_bench.tracking.view import address, view_tag

#: Lets MLflow's pages open the experiment as model training, not as generative AI.
_EXPERIMENT_KIND, _TRAINING = "mlflow.experimentKind", "custom_model_development"
#: The longest value that every store takes for a tag, less what is said of the rest.
_LONGEST_NOTE, _REST = 4900, "… `dms-bench leaderboard` shows all."
#: Values that MLflow's pages have guessed, or that are none: all others somebody has chosen.
_UNDECIDED = ("", "no_inferred_type", "genai_development_inferred", "custom_model_development_inferred")


@dataclass(frozen=True)
class SuiteRun:
    """An invocation of a suite; the runs of its trials are its children."""

    uri: str
    experiment_id: str
    parent_id: str

    @property
    def address(self) -> str:
        """Where MLflow's pages show the suite's results."""
        return address(self.uri, self.experiment_id)

    def show(self, measures: Mapping[str, bool]) -> None:
        """Save the view in which MLflow's pages show results.

        Args:
            measures: what trials are ranked by, and whether more of it is better.

        Raises:
            UserError: the store does not answer.
        """
        client = connect(self.uri)
        with answering(self.uri):
            experiment = client.get_experiment(self.experiment_id)
            tag, value = view_tag(measures, experiment.creation_time)
            if experiment.tags.get(tag) != value:
                client.set_experiment_tag(self.experiment_id, tag, value)

    def describe(self, text: str) -> None:
        """Set what the page of this invocation begins with, in Markdown; what is too long ends with a whole line.

        Raises:
            UserError: the store does not answer.
        """
        client = connect(self.uri)
        with answering(self.uri):
            client.set_tag(self.parent_id, names.NOTE, _shortened(redact(text, self.uri)))

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
        tags[names.NOTE] = _shortened(redact(suite.description, suite.tracking))
    run = client.create_run(experiment_id, tags=tags, run_name=suite.name)
    written = json.dumps(redacted(suite.model_dump(mode="json"), suite.tracking), indent=2, ensure_ascii=False)
    client.log_text(run.info.run_id, written, "suite.json")
    return SuiteRun(uri, experiment_id, run.info.run_id)


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST_NOTE:
        return text
    cut = text[:_LONGEST_NOTE]
    return f"{cut.rpartition(chr(10))[0] or cut}\n\n{_REST}"


def experiment_of(client: Any, uri: str, name: str) -> str:
    """Return the id of a suite's experiment, which is made where it is missing.

    Raises:
        UserError: it was deleted.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return _create_experiment(client, uri, name)
    if experiment.lifecycle_stage == "active" and experiment.tags.get(_EXPERIMENT_KIND, "") in _UNDECIDED:
        client.set_experiment_tag(experiment.experiment_id, _EXPERIMENT_KIND, _TRAINING)
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"tracking {shown(uri)}: experiment {name!r} was deleted there; restore it with "
            f"`mlflow experiments restore -x {experiment.experiment_id}` or rename the suite"
        )
    return str(experiment.experiment_id)


def finished(uri: str, suite_name: str) -> dict[str, str]:
    """Return `finished`, `failed` or `stopped` for each trial (by hash) that came to an end.

    Trials that were killed are left out: they go on.

    Raises:
        UserError: the store does not answer.
    """
    return {trial: status for trial, status in statuses(uri, suite_name).items() if status != names.RUNNING}


def statuses(uri: str, suite_name: str) -> dict[str, str]:
    """Return `running`, `finished`, `failed` or `stopped` for each trial (by hash) that has a run.

    A store or a suite that does not exist yet has none.

    Raises:
        UserError: the store does not answer.
    """
    path = sqlite_path(resolve_uri(uri))
    if path is not None and not path.exists():
        return {}
    found: dict[str, str] = {}
    for trial in read_trials(uri, [suite_name], tags_only=True):
        before = found.get(trial.hash, names.RUNNING)
        if before == names.RUNNING or (before != names.FINISHED and trial.status != names.RUNNING):
            found[trial.hash] = trial.status
    return found


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
    """Delete the runs of these trials (hashes) and their models, so that they can be run afresh; returns how many.

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
            if names.LOGGED_MODEL in trial.tags:
                client.delete_logged_model(trial.tags[names.LOGGED_MODEL])
    return len(forgotten)


def _create_experiment(client: Any, uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    path = sqlite_path(uri)
    # Beside the database, not in whatever folder the driver happens to run; a server decides itself.
    location = (path.parent / "mlruns" / name).as_uri() if path is not None else None
    tags = {names.SUITE: name, _EXPERIMENT_KIND: _TRAINING}
    try:
        return str(client.create_experiment(name, artifact_location=location, tags=tags))
    except MlflowException:  # another driver was quicker
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise
        return str(experiment.experiment_id)
