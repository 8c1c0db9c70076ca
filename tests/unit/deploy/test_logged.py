"""A trial's network among MLflow's models: opened as MLflow's users open one, and never in the way of a result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dms_bench.deploy import logged
from dms_bench.tracking import TrialRun, connect, names, open_suite, register_best
from dms_bench.tracking.reading import read_trials
from dms_bench.trial.group import alone
from dms_bench.trial.publish import publish_result
from dms_bench.trial.record import load
from dms_bench.trial.run import run_trial
from dms_bench.trial.storage import WorkFolder
from tests.unit.deploy.conftest import digits_suite, digits_trial

#: What somebody runs who has MLflow and torch, and has never heard of dms_bench.
ELSEWHERE = """
import sys
sys.modules["dms_bench"] = sys.modules["dms_bench_tasks"] = None  # whatever imports them fails
import mlflow, numpy
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(f"models:/{sys.argv[2]}@best")
numpy.save(sys.argv[4], model.predict(numpy.load(sys.argv[3])))
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, TrialRun, WorkFolder]:
    """Store, run and folder of a trial whose network is a model in MLflow."""
    folder = tmp_path_factory.mktemp("logged")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    work = WorkFolder(folder / "work")
    trial = digits_trial()
    run_trial(trial, work, alone(trial.resources))
    suite = open_suite(uri, digits_suite(), {})
    run = TrialRun(suite.uri, suite.experiment_id, suite.parent_id, trial, {})
    publish_result(work, run)
    logged.publish_model(work, run)
    return uri, run, work


def test_the_best_network_predicts_the_same_without_dms_bench_and_without_pickle(
    published: tuple[str, TrialRun, WorkFolder], tmp_path: Path
) -> None:
    uri, run, _ = published
    (line,) = register_best(uri, "deploy")
    assert line.startswith("models:/deploy.digits.macs-50pct@best is digits-l1-")
    assert register_best(uri, "deploy") == [], "it is registered already"

    inputs = torch.rand(5, 3, 32, 32)
    np.save(tmp_path / "inputs.npy", inputs.numpy())
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, uri, "deploy.digits.macs-50pct", "inputs.npy", "outputs.npy"],
        cwd=tmp_path,
        env={"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        check=True,
    )
    for name in ("architecture.json", "weights.safetensors"):
        connect(uri).download_artifacts(run.run_id, name, str(tmp_path))
    with torch.no_grad():
        ours = load(tmp_path)(inputs).numpy()
    assert np.abs(ours).max() > 0.1
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), ours, rtol=1e-4, atol=1e-4)


def test_the_model_belongs_to_the_run_with_its_data_and_its_results(
    published: tuple[str, TrialRun, WorkFolder],
) -> None:
    uri, run, _ = published
    client = connect(uri)
    stored = client.get_run(run.run_id)
    (output,) = stored.outputs.model_outputs
    assert output.model_id == stored.data.tags[names.LOGGED_MODEL]
    model = client.get_logged_model(output.model_id)
    assert (model.source_run_id, model.status) == (run.run_id, "READY")
    assert (model.params["budget"], model.params["seed"]) == ("macs 50%", "1")
    metrics = {metric.key: metric for metric in model.metrics}
    assert metrics["test/top1"].value == stored.data.metrics["test/top1"]
    assert metrics["macs"].value == stored.data.metrics["macs"]
    (data,) = stored.inputs.dataset_inputs
    assert metrics["test/top1"].dataset_digest == data.dataset.digest
    assert data.dataset.name == "digits 32px"
    assert len(client.get_metric_history(run.run_id, "macs")) == 1, "said of the model, not logged again"


def test_a_network_that_cannot_be_written_costs_no_result(
    published: tuple[str, TrialRun, WorkFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _, work = published
    record = read_trials(uri, ["deploy"])[0]
    suite = open_suite(uri, digits_suite(), {})
    run = TrialRun(suite.uri, suite.experiment_id, suite.parent_id, digits_trial(seed=2), {})
    publish_result(work, run)  # its validation is the same, and its hash another

    def fails(*_: Any) -> None:
        raise RuntimeError("no such operator\nwith a long explanation")

    monkeypatch.setattr(logged, "write_program", fails)
    logged.publish_model(work, run)
    stored = connect(uri).get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.tags[names.STATUS] == "finished"
    assert stored.data.metrics["test/top1"] == record.value
    why = "no such operator with a long explanation"
    assert stored.data.tags[names.NO_MODEL] == why
    assert names.LOGGED_MODEL not in stored.data.tags
    assert register_best(uri, "deploy")[0] == f"1 network is no model in MLflow: {why}"
    connect(uri).delete_run(run.run_id)


def test_large_networks_are_left_to_export(
    published: tuple[str, TrialRun, WorkFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _, work = published
    suite = open_suite(uri, digits_suite(), {})
    run = TrialRun(suite.uri, suite.experiment_id, suite.parent_id, digits_trial(seed=3), {})
    publish_result(work, run)
    monkeypatch.setattr(logged, "LARGEST", 1000)
    logged.publish_model(work, run)
    assert "models of up to 0 MiB are logged" in connect(uri).get_run(run.run_id).data.tags[names.NO_MODEL]
    connect(uri).delete_run(run.run_id)
