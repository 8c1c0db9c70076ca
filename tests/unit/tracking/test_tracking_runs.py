from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dms_bench.config.suite import Suite
from dms_bench.config.trial import Resources, Trial
from dms_bench.errors import TrialFailure, UserError
from dms_bench.tracking import (
    StageCost,
    SuiteRun,
    TrackingLost,
    TrialResult,
    TrialRun,
    connect,
    finished,
    forget,
    names,
    open_suite,
)
from dms_bench.tracking.content import flat_params

ENVIRONMENT = {"git_commit": "abc", "torch": "2"}


@pytest.fixture
def suite_run(store: str, make_suite: Callable[..., Suite]) -> SuiteRun:
    return open_suite(store, make_suite(), ENVIRONMENT)


@pytest.fixture
def open_trial(suite_run: SuiteRun) -> Callable[[Trial], TrialRun]:
    return lambda trial: TrialRun(suite_run.uri, suite_run.experiment_id, suite_run.parent_id, trial, ENVIRONMENT)


def result(value: float = 0.75) -> TrialResult:
    costs = [
        StageCost(stage="pretrain", device="EPYC", kind="cpu", devices=2, seconds=43200),
        StageCost(stage="search", device="EPYC", kind="cpu", devices=2, seconds=4320, attempts=2),
        StageCost(stage="search", device="H200", kind="gpu", devices=1, seconds=8640),
    ]
    return TrialResult(
        metric="top1", value=value, metrics={"top5": 0.9}, macs=300, params=30, supernet_macs=1000,
        supernet_params=100, latency_ms=0.5, supernet_latency_ms=1.5, targets={"macs": 301.0}, costs=costs, seed=0,
    )  # fmt: skip


def history(run: TrialRun, key: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in connect(run._uri).get_metric_history(run.run_id, key)]


class Flaky:
    """A client whose store can be down."""

    def __init__(self, client: Any) -> None:
        self.client, self.down, self.calls = client, False, 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.down:
                raise ConnectionError("https://ann:s3cret@host is away")
            return getattr(self.client, name)(*arguments, **options)

        return call


def test_a_finished_trial_holds_everything(
    open_trial: Callable[[Trial], TrialRun], make_trial: Callable[..., Trial], suite_run: SuiteRun, tmp_path: Path
) -> None:
    trial = make_trial("dms", seed=3)
    run = open_trial(trial)
    run.log("search", 1, {"train_loss": 2.0, "kept": 0.9, "kept/model.stream'": 0.4})
    run.log("search", 2, {"train_loss": 1.0, "kept": 0.5})
    (tmp_path / "architecture.json").write_text("{}")
    run.artifact(tmp_path / "architecture.json")
    run.finish(result())

    client = connect(suite_run.uri)
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == trial.name
    tags, metrics = stored.data.tags, stored.data.metrics
    assert tags[names.TRIAL] == trial.hash
    assert tags[names.PARENT_RUN] == suite_run.parent_id
    assert tags[names.STATUS] == "finished"
    assert tags[names.SUITE] == "paper"
    assert tags[names.BUDGET] == "macs 30%"
    assert (tags[names.SEED], tags[names.METHOD], tags[names.MODEL]) == ("3", "dms", "resnet18")
    assert json.loads(tags[names.ENVIRONMENT]) == ENVIRONMENT
    assert stored.data.params["method.temperature"] == "1.0"
    assert stored.data.params["supernet.args.channels"] == "[16, 32]"
    assert metrics["test/top1"] == 0.75
    assert metrics["test/top5"] == 0.9
    assert metrics["search_device_days"] == pytest.approx(0.2)
    assert (tags[names.DEVICE], tags[names.DEVICE_KIND]) == ("EPYC + H200", "cpu+gpu")
    assert metrics["public_device_days"] == pytest.approx(1.0)
    assert metrics["cost/pretrain_device_days"] == pytest.approx(1.0)
    assert (metrics["macs"], metrics["supernet_macs"], metrics["target_macs"]) == (300, 1000, 301)
    assert metrics["budget_missed"] == 0
    assert history(run, "search/train_loss") == [(1, 2.0), (2, 1.0)]
    assert history(run, "search/kept/model.stream_") == [(1, 0.4)]
    assert {item.path for item in client.list_artifacts(run.run_id)} == {"architecture.json", "spec.json"}
    spec = Path(client.download_artifacts(run.run_id, "spec.json", str(tmp_path))).read_text()
    assert json.loads(spec)["seed"] == 3
    assert finished(suite_run.uri, "paper") == {trial.hash: "finished"}


def test_a_resumed_trial_goes_on_with_its_run_and_logs_no_epoch_twice(
    open_trial: Callable[[Trial], TrialRun], make_trial: Callable[..., Trial]
) -> None:
    first = open_trial(make_trial())
    for epoch in (1, 2, 3):
        first.log("retrain", epoch, {"loss": float(epoch)})
    first.flush()
    # Killed; the last checkpoint was of epoch 1, and the trial may now have other resources.
    second = open_trial(make_trial(resources=Resources(cpus=2)))
    assert second.run_id == first.run_id
    for epoch in (2, 3, 4):
        second.log("retrain", epoch, {"loss": 10.0 * epoch, "new": 1.0})
    second.flush()
    assert history(second, "retrain/loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert history(second, "retrain/new") == [(2, 1.0), (3, 1.0), (4, 1.0)]


def test_a_failed_trial_is_retried_in_its_run(
    open_trial: Callable[[Trial], TrialRun], make_trial: Callable[..., Trial], suite_run: SuiteRun
) -> None:
    trial = make_trial()
    run = open_trial(trial)
    run.fail("loss is nan")
    stored = connect(suite_run.uri).get_run(run.run_id)
    assert (stored.info.status, stored.data.tags[names.ERROR]) == ("FAILED", "loss is nan")
    assert finished(suite_run.uri, "paper") == {trial.hash: "failed"}
    again = open_trial(trial)
    stored = connect(suite_run.uri).get_run(again.run_id)
    assert again.run_id == run.run_id
    assert stored.info.status == "RUNNING"
    assert names.ERROR not in stored.data.tags
    assert finished(suite_run.uri, "paper") == {}
    again.finish(result())
    assert finished(suite_run.uri, "paper") == {trial.hash: "finished"}


@pytest.mark.parametrize("end", ["finish", "stop"])
def test_an_ended_trial_is_left_alone(
    open_trial: Callable[[Trial], TrialRun], make_trial: Callable[..., Trial], suite_run: SuiteRun, end: str
) -> None:
    run = open_trial(make_trial())
    run.finish(result(0.5)) if end == "finish" else run.stop("worse than its rung")
    again = open_trial(make_trial())
    assert again.already_finished
    again.log("retrain", 9, {"loss": 1.0})
    again.finish(result(0.9))
    again.fail("too late")
    stored = connect(suite_run.uri).get_run(run.run_id)
    assert stored.data.metrics.get("test/top1") == (0.5 if end == "finish" else None)
    assert stored.data.tags[names.STATUS] == ("finished" if end == "finish" else "stopped")
    assert "retrain/loss" not in stored.data.metrics


def test_results_survive_a_lost_store(
    open_trial: Callable[[Trial], TrialRun], make_trial: Callable[..., Trial], tmp_path: Path, caplog: Any
) -> None:
    run = open_trial(make_trial())
    run._client = flaky = Flaky(run._client)
    flaky.down = True
    (tmp_path / "plot.png").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        run.log("search", 1, {"loss": 3.0})
        run.artifact(tmp_path / "plot.png")
        run.log("search", 2, {"loss": 2.0})
        run.flush()
    assert len(caplog.records) == 1, "one warning for one outage"
    assert "s3cret" not in caplog.text
    calls = flaky.calls
    run.log("search", 3, {"loss": 1.0})
    assert flaky.calls == calls, "a store that is away is not asked at every epoch"
    with pytest.raises(TrackingLost, match="same command publishes") as caught:
        run.finish(result())
    assert isinstance(caught.value, TrialFailure)
    assert "s3cret" not in str(caught.value)
    flaky.down = False
    run.finish(result())
    assert history(run, "search/loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert {item.path for item in flaky.list_artifacts(run.run_id)} == {"plot.png", "spec.json"}


def test_a_trial_can_begin_while_the_store_is_away(
    make_trial: Callable[..., Trial], suite_run: SuiteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dms_bench.tracking import trial_run

    real = trial_run.make_client
    flaky = Flaky(real(suite_run.uri))
    flaky.down = True
    monkeypatch.setattr(trial_run, "make_client", lambda uri: flaky)
    run = TrialRun(suite_run.uri, suite_run.experiment_id, suite_run.parent_id, make_trial(), {})
    run.log("search", 1, {"loss": 3.0})
    assert run.run_id is None
    flaky.down = False
    run.finish(result())
    assert history(run, "search/loss") == [(1, 3.0)]
    assert finished(suite_run.uri, "paper") == {make_trial().hash: "finished"}


def test_epochs_are_sent_in_batches(open_trial: Callable[[Trial], TrialRun], make_trial: Callable[..., Trial]) -> None:
    run = open_trial(make_trial())
    run._client = flaky = Flaky(run._client)
    for epoch in range(1, 51):
        run.log("retrain", epoch, {f"m{index}": 1.0 for index in range(30)})
    run.flush()
    assert flaky.calls <= 4, "1,500 numbers: the first epoch at once, then two requests of at most 1,000"
    assert len(history(run, "retrain/m7")) == 50


def test_numbers_that_are_not_finite_are_kept(
    open_trial: Callable[[Trial], TrialRun], make_trial: Callable[..., Trial]
) -> None:
    run = open_trial(make_trial())
    run.log("retrain", 1, {"loss": float("nan"), "other": float("inf"), "fine": 1.0})
    assert run.flush()
    assert history(run, "retrain/fine") == [(1, 1.0)]


def test_a_missing_artifact_is_an_error_at_once(
    open_trial: Callable[[Trial], TrialRun], make_trial: Callable[..., Trial], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        open_trial(make_trial()).artifact(tmp_path / "nothing.json")


def test_long_and_odd_parameters_fit_mlflow(
    open_trial: Callable[[Trial], TrialRun], make_trial: Callable[..., Trial], suite_run: SuiteRun
) -> None:
    arguments = {"long": "x" * 7000, "näme (odd)": 1, "k" * 300: 2, **{f"a{index}": index for index in range(150)}}
    trial = make_trial(supernet={"model": "net", "args": arguments})
    run = open_trial(trial)
    assert run.run_id is not None
    params = connect(suite_run.uri).get_run(run.run_id).data.params
    assert params == flat_params(trial)
    assert len(params["supernet.args.long"]) == 6000
    assert params["supernet.args.a149"] == "149"
    assert "resources.cpus" not in params


def test_each_invocation_is_a_parent_run_of_one_experiment(store: str, make_suite: Callable[..., Suite]) -> None:
    first = open_suite(store, make_suite(), ENVIRONMENT)
    first.finish("failed")
    second = open_suite(store, make_suite(), ENVIRONMENT)
    assert first.experiment_id == second.experiment_id
    assert first.parent_id != second.parent_id
    client = connect(store)
    assert client.get_run(first.parent_id).info.status == "FAILED"
    assert client.get_run(second.parent_id).info.status == "RUNNING"
    assert client.get_experiment(first.experiment_id).name == "paper"
    assert finished(store, "paper") == {}


def test_artifacts_lie_beside_the_database_wherever_the_driver_runs(
    store: str, make_suite: Callable[..., Suite], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    open_suite(store, make_suite(), ENVIRONMENT)
    assert list(elsewhere.iterdir()) == []
    assert (tmp_path / "mlruns" / "paper").is_dir()


def test_a_deleted_experiment_is_explained(store: str, make_suite: Callable[..., Suite]) -> None:
    run = open_suite(store, make_suite(), ENVIRONMENT)
    connect(store).delete_experiment(run.experiment_id)
    with pytest.raises(UserError, match="was deleted"):
        open_suite(store, make_suite(), ENVIRONMENT)


def test_nothing_is_finished_in_a_store_that_is_not_there(tmp_path: Path, store: str) -> None:
    assert finished(f"sqlite:///{tmp_path / 'none.db'}", "paper") == {}
    assert finished(store, "another") == {}
    assert forget(store, "another", ["x"]) == 0


def test_forgotten_trials_run_afresh(
    open_trial: Callable[[Trial], TrialRun], make_trial: Callable[..., Trial], suite_run: SuiteRun
) -> None:
    kept, gone = make_trial(seed=1), make_trial(seed=2)
    for trial in (kept, gone):
        open_trial(trial).finish(result())
    assert forget(suite_run.uri, "paper", [gone.hash]) == 1
    assert finished(suite_run.uri, "paper") == {kept.hash: "finished"}
    assert not open_trial(gone).already_finished


def test_what_a_search_computes_is_published_where_it_was_counted():
    from dms_bench.tracking.content import cost_metrics

    stages = {"pretrain": (100, 5e9), "search": (40, 2e9), "predictor": (7, 1e9), "retrain": (900, 9e9)}
    counted = [
        StageCost(stage=stage, device="EPYC", kind="cpu", devices=2, seconds=1, samples=samples, macs=macs)
        for stage, (samples, macs) in stages.items()
    ]
    values = cost_metrics(counted)
    assert (values["search_samples"], values["search_training_macs"]) == (40, 2e9)
    assert (values["public_samples"], values["public_training_macs"]) == (107, 6e9)
    assert "search_processor_seconds" not in values
    worked = [cost.model_copy(update={"processor_seconds": 1.5}) for cost in counted]
    assert cost_metrics(worked)["search_processor_seconds"] == 1.5
    assert cost_metrics(worked)["public_processor_seconds"] == 3.0
    older = StageCost(stage="search", device="EPYC", kind="cpu", devices=2, seconds=1)
    assert not any(name.endswith(("samples", "training_macs")) for name in cost_metrics([*counted, older]))
