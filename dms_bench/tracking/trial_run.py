"""A trial's run: found again after an interruption, written in batches, patient with a lost server."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dms_bench.config.trial import Trial
from dms_bench.errors import TrialFailure
from dms_bench.tracking import names
from dms_bench.tracking.content import (
    cost_metrics,
    cost_tags,
    dataset_input,
    environment_tags,
    flat_params,
    result_metrics,
    result_tags,
    trial_tags,
)
from dms_bench.tracking.find_run import Remembered, find_run
from dms_bench.tracking.logged_model import Write, log_model
from dms_bench.tracking.result import StageCost, TrialResult
from dms_bench.tracking.secrets import redact, redacted, shown
from dms_bench.tracking.store import make_client, reason, resolve_uri

_FLUSH_SECONDS = 2.0
_RETRY_SECONDS = 30.0
#: MLflow's limits: metrics, parameters and tags of a request, and the length of a tag.
_METRICS, _PARAMS, _TAGS, _TAG_LENGTH = 1000, 100, 100, 8000

_log = logging.getLogger(__name__)


class TrackingLost(TrialFailure):
    """The tracking store did not take a trial's results; they are still on disk."""


class TrialRun:
    """The run of one trial, found or created. For one writer (rank 0).

    A run that is already finished is left alone: everything below then does nothing. While the
    store does not answer, what is logged is kept and sent later; only `finish`, `stop` and `fail` insist.
    """

    def __init__(
        self,
        uri: str,
        experiment_id: str,
        parent_id: str,
        trial: Trial,
        environment: dict[str, str],
        remembered: Remembered | None = None,
    ) -> None:
        """Open the run, or try to.

        Args:
            uri: tracking URI.
            experiment_id: MLflow's, of the suite.
            parent_id: the suite's run.
            trial: whose run it is.
            environment: what `environment()` found.
            remembered: where the run's id is kept; without it the run is looked for by the trial's hash.
        """
        self._uri = resolve_uri(uri)
        self._experiment_id = experiment_id
        self._parent_id = parent_id
        self._trial = trial
        self._environment = environment
        self._remembered = remembered or Remembered(None)
        self._client: Any = None
        self._metrics: list[Any] = []
        self._artifacts: list[tuple[Path, str | None]] = []
        self._stage: str | None = None
        #: Last step of each metric that an earlier attempt logged; None while it is not read.
        self._logged: dict[str, int | None] = {}
        self._next_flush = 0.0
        self._lost = False
        self.run_id: str | None = None
        self.already_finished = False
        self.flush()

    def log(self, stage: str, epoch: int, metrics: dict[str, float]) -> None:
        """Record an epoch's metrics as `<stage>/<name>`; an epoch that is there already is skipped."""
        from mlflow.entities import Metric

        if stage != self._stage:
            self._next_flush = 0.0
        self._stage = stage
        now = int(time.time() * 1000)
        self._metrics += [
            Metric(names.plain(f"{stage}/{name}"), float(value), now, epoch) for name, value in metrics.items()
        ]
        if time.monotonic() >= self._next_flush:
            self.flush()

    def artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Publish a file (now, or as soon as the store answers) under the run's `folder`.

        Raises:
            FileNotFoundError: there is no such file.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(path)
        self._artifacts.append((Path(path), folder))
        self.flush()

    def flush(self) -> bool:
        """Send what is kept; returns whether nothing is left. Never raises for a store that does not answer."""
        try:
            self._send()
        except Exception as error:  # MLflow passes on what SQLAlchemy, requests or the file system raises
            if not self._lost:
                _log.warning(
                    "tracking %s does not take results, keeping them for later: %s",
                    shown(self._uri),
                    reason(error, self._uri),
                )
            self._lost = True
            self._next_flush = time.monotonic() + _RETRY_SECONDS
            return False
        self._lost = False
        self._next_flush = time.monotonic() + _FLUSH_SECONDS
        return True

    def finish(self, result: TrialResult, describe: Callable[[Trial, TrialResult, str], str] | None = None) -> None:
        """Publish the result and close the run. May be called again by a later process.

        Args:
            result: what the trial came to.
            describe: writes what the run's page begins with, in Markdown, given the id of the run as well.

        Raises:
            TrackingLost: the store does not take it; publish it again from `result.json`.
        """

        def tags(run_id: str) -> dict[str, str]:
            note = {} if describe is None else {names.NOTE: redact(describe(self._trial, result, run_id), self._uri)}
            return result_tags(result) | note

        self._close(names.FINISHED, result_metrics(result), tags)

    def stop(self, message: str, costs: Sequence[StageCost] = ()) -> None:
        """Close the run of a trial that a scheduler ended early; it is not run again.

        Raises:
            TrackingLost: the store does not take it.
        """
        self._close(names.STOPPED, cost_metrics(costs), self._error(message, costs))

    def fail(self, message: str, costs: Sequence[StageCost] = ()) -> None:
        """Close the run as failed, with its message and what it has cost so far.

        Raises:
            TrackingLost: the store does not take it.
        """
        self._close(names.FAILED, cost_metrics(costs), self._error(message, costs))

    def _error(self, message: str, costs: Sequence[StageCost]) -> Callable[[str], dict[str, str]]:
        return lambda _: {**cost_tags(costs), names.ERROR: redact(message, self._uri)}

    def log_model(self, write: Write) -> None:
        """Log the network of a finished trial as a model of MLflow's; never raises for what goes wrong.

        Args:
            write: writes it as a program of torch.export.
        """
        if self.run_id is not None:
            log_model(self._client, self._uri, self.run_id, write)

    def _close(self, status: str, metrics: dict[str, float], tags: Callable[[str], dict[str, str]]) -> None:
        from mlflow.entities import Metric

        try:
            self._send()
            if self.already_finished:
                return
            assert self.run_id is not None
            now = int(time.time() * 1000)
            points = [Metric(name, value, now, 0) for name, value in metrics.items()]
            # The status comes last: a run that says `finished` has everything.
            said = _tags({**tags(self.run_id), names.STATUS: status})
            self._client.log_batch(self.run_id, metrics=points, tags=said)
            self._client.set_terminated(self.run_id, names.MLFLOW_STATUS[status])
        except Exception as error:
            raise TrackingLost(
                f"trial {self._trial.name}: tracking {shown(self._uri)} did not take its results "
                f"({reason(error, self._uri)}); they are kept, and the same command publishes them"
            ) from None  # the error, and what it comes from, may hold the address

    def _send(self) -> None:
        if self.run_id is None:
            self._open()
        if self.already_finished:
            self._metrics, self._artifacts = [], []
            return
        while self._metrics:
            batch = self._metrics[:_METRICS]
            fresh = [metric for metric in batch if metric.step > self._last_step(metric.key)]
            if fresh:
                self._client.log_batch(self.run_id, metrics=fresh)
            del self._metrics[: len(batch)]
        while self._artifacts:
            path, folder = self._artifacts[0]
            self._client.log_artifact(self.run_id, str(path), folder)
            del self._artifacts[0]

    def _open(self) -> None:
        """Find the trial's run, or create it; complete what an interrupted attempt left out."""
        if self._client is None:
            self._client = make_client(self._uri)
        found = find_run(self._client, self._uri, self._experiment_id, self._trial.hash, self._remembered)
        if found is not None:
            self._remembered.keep(found.run_id)
            if found.over:
                self.run_id, self.already_finished = found.run_id, True
                return
        tags = {
            **trial_tags(self._trial),
            **environment_tags(self._environment),
            names.SUITE: self._client.get_experiment(self._experiment_id).name,
            names.STATUS: names.RUNNING,
            names.PARENT_RUN: self._parent_id,
        }
        if found is not None:
            run = self._client.get_run(found.run_id)
            if names.ERROR in run.data.tags:
                self._client.delete_tag(run.info.run_id, names.ERROR)
            self._client.update_run(run.info.run_id, status="RUNNING")
            self._client.log_batch(run.info.run_id, tags=_tags(tags))
        else:
            self._remembered.about_to_create()
            run = self._client.create_run(
                self._experiment_id, tags={tag.key: tag.value for tag in _tags(tags)}, run_name=self._trial.name
            )
            self._remembered.keep(run.info.run_id)
        self._logged = dict.fromkeys(run.data.metrics)
        self._log_params(run)
        if not run.inputs.dataset_inputs:
            self._client.log_inputs(run.info.run_id, [dataset_input(self._trial, self._uri)])
        self._client.log_text(run.info.run_id, _json_of(self._trial, self._uri), "spec.json")
        self.run_id = run.info.run_id

    def _log_params(self, run: Any) -> None:
        params = flat_params(self._trial, self._uri)
        missing = {key: value for key, value in params.items() if key not in run.data.params}
        log_in_batches(self._client, run.info.run_id, missing, {})

    def _last_step(self, key: str) -> int:
        """Return the last step of `key` that an earlier attempt logged, -1 for none."""
        if key not in self._logged:
            return -1
        step = self._logged[key]
        if step is None:
            step = max(metric.step for metric in self._client.get_metric_history(self.run_id, key))
            self._logged[key] = step
        return step


def log_in_batches(client: Any, run_id: str, params: dict[str, str], metrics: dict[str, float]) -> None:
    """Write params and metrics to a run, no more at once than MLflow takes."""
    from mlflow.entities import Metric, Param

    written = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(written), _PARAMS):
        client.log_batch(run_id, params=written[start : start + _PARAMS])
    now = int(time.time() * 1000)
    points = [Metric(key, value, now, 0) for key, value in metrics.items()]
    for start in range(0, len(points), _METRICS):
        client.log_batch(run_id, metrics=points[start : start + _METRICS])


def _json_of(trial: Trial, uri: str) -> str:
    return json.dumps(redacted(trial.model_dump(mode="json"), uri), indent=2, ensure_ascii=False)


def _tags(tags: dict[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    assert len(tags) <= _TAGS
    return [RunTag(key, value[:_TAG_LENGTH]) for key, value in tags.items()]
