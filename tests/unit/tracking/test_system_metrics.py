"""System metrics are logged where MLflow is asked to, and go on where an earlier attempt ended."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from dms_bench.config.suite import Suite
from dms_bench.config.trial import Trial
from dms_bench.tracking import TrialRun, connect, open_suite, system_metrics

CPU = "system/cpu_utilization_percentage"


@pytest.mark.parametrize("asked", [True, False])
def test_they_are_logged_where_mlflow_is_asked_to(
    store: str,
    make_suite: Callable[..., Suite],
    make_trial: Callable[..., Trial],
    monkeypatch: pytest.MonkeyPatch,
    asked: bool,
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", str(asked).lower())
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    suite = open_suite(store, make_suite(), {})
    run = TrialRun(suite.uri, suite.experiment_id, suite.parent_id, make_trial(), {})
    counts = []
    for _ in range(2):
        with system_metrics(suite.uri, run.run_id):
            time.sleep(0.5)
        counts.append(len({metric.step for metric in connect(store).get_metric_history(run.run_id, CPU)}))
    assert (counts[1] > counts[0] > 0) == asked
    run.stop("enough")


def test_a_run_that_is_not_there_yet_has_none(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    with system_metrics(store, None):
        pass
