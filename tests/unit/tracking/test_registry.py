"""Which network of a suite is `models:/NAME@best`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dms_bench.config.suite import Suite
from dms_bench.config.trial import Trial
from dms_bench.tracking import TrialResult, TrialRun, connect, forget, names, open_suite, register_best

#: A trial -> its run, published with measures on the validation and the test split.
Publish = Callable[..., str]
NAME = "paper.cnn.macs-30pct"


@pytest.fixture
def publish(store: str, make_suite: Callable[..., Suite]) -> Publish:
    suite = open_suite(store, make_suite(), {})

    def publish(trial: Trial, validation: float, test: float, *, logged: bool = True, **fields: Any) -> str:
        run = TrialRun(suite.uri, suite.experiment_id, suite.parent_id, trial, {})
        given = {"macs": 300, "params": 30, "supernet_macs": 1000, "supernet_params": 100, "targets": {"macs": 300.0}}
        run.finish(
            TrialResult(
                **(given | fields), metric=trial.task.metric, value=test, validation=validation, seed=trial.seed
            )
        )
        client = connect(store)
        if logged:
            model = client.create_logged_model(suite.experiment_id, source_run_id=run.run_id)
            client.set_tag(run.run_id, names.LOGGED_MODEL, model.model_id)
        return trial.hash

    return publish


def best(store: str, name: str = NAME) -> str:
    """Return the hash of the trial that the alias stands for."""
    return str(connect(store).get_model_version_by_alias(name, "best").tags[names.TRIAL])


def test_the_validation_split_decides(store: str, publish: Publish, make_trial: Callable[..., Trial]) -> None:
    chosen = publish(make_trial("dms", 0), validation=71.0, test=60.0)
    publish(make_trial("random", 0), validation=70.0, test=90.0)
    (line,) = register_best(store, "paper")
    assert best(store) == chosen
    assert f"models:/{NAME}@best is " in line
    assert line.endswith("top1 71 on the validation split, the best of 2")
    version = connect(store).get_model_version_by_alias(NAME, "best")
    model = connect(store).get_logged_model(version.tags[names.LOGGED_MODEL])
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": NAME, "version": version.version}]
    assert register_best(store, "paper") == []
    assert len(connect(store).search_model_versions(f"name='{NAME}'")) == 1

    better = publish(make_trial("dms", 1), validation=71.5, test=10.0)
    register_best(store, "paper")
    assert best(store) == better
    assert connect(store).get_model_version_by_alias(NAME, "best").version != version.version


def test_less_is_better_of_a_measure_that_says_so(
    store: str, publish: Publish, make_trial: Callable[..., Trial]
) -> None:
    publish(make_trial("dms", 0), 50.0, 50.0)
    chosen = publish(make_trial("dms", 1), 40.0, 60.0)
    client = connect(store)
    for run in client.search_runs([client.get_experiment_by_name("paper").experiment_id]):
        client.set_tag(run.info.run_id, names.HIGHER_IS_BETTER, "false")
    register_best(store, "paper")
    assert best(store) == chosen


def test_forgotten_trials_leave_no_model(store: str, publish: Publish, make_trial: Callable[..., Trial]) -> None:
    forgotten = publish(make_trial("dms", 0), 50.0, 50.0)
    publish(make_trial("dms", 1), 40.0, 60.0)
    client = connect(store)
    experiment = client.get_experiment_by_name("paper").experiment_id
    assert len(client.search_logged_models([experiment])) == 2
    assert forget(store, "paper", [forgotten]) == 1
    assert len(client.search_logged_models([experiment])) == 1


def test_a_network_over_its_budget_is_not_the_best(
    store: str, publish: Publish, make_trial: Callable[..., Trial]
) -> None:
    chosen = publish(make_trial("dms", 0), 50.0, 50.0, macs=303)
    whole = {"macs": 1000, "params": 100}
    publish(make_trial("supernet", 0), 99.0, 99.0, **whole)
    publish(make_trial("supernet", 1, "100%"), 99.0, 99.0, **whole, targets={"macs": 1000.0})
    publish(make_trial("dms", 1), 98.0, 98.0, macs=304)
    publish(make_trial("dms", 2), 97.0, 97.0, targets={})
    register_best(store, "paper")
    assert best(store) == chosen
    assert len(connect(store).search_registered_models()) == 1


def test_a_latency_is_judged_by_what_predicted_it(
    store: str, publish: Publish, make_trial: Callable[..., Trial]
) -> None:
    timed = {"targets": {"latency": 2.0}, "latency_ms": 2.5}
    chosen = publish(make_trial("dms", 0), 50.0, 50.0, latency_predicted_ms=1.9, **timed)
    publish(make_trial("dms", 1), 60.0, 60.0, latency_predicted_ms=2.1, **timed)
    publish(make_trial("dms", 2), 70.0, 70.0, **timed)
    register_best(store, "paper")
    assert best(store) == chosen


def test_each_budget_has_a_name_of_its_own(store: str, publish: Publish, make_trial: Callable[..., Trial]) -> None:
    small = publish(make_trial("dms", 0, "30%"), 50.0, 50.0)
    large = publish(make_trial("dms", 0, "50%"), 60.0, 60.0, macs=500, targets={"macs": 500.0})
    register_best(store, "paper")
    assert (best(store), best(store, "paper.cnn.macs-50pct")) == (small, large)


def test_a_best_network_without_a_model_leaves_no_second_best_in_its_place(
    store: str, publish: Publish, make_trial: Callable[..., Trial]
) -> None:
    publish(make_trial("dms", 0), 50.0, 50.0)
    register_best(store, "paper")
    publish(make_trial("dms", 1), 60.0, 60.0, logged=False)
    (line,) = register_best(store, "paper")
    assert line.startswith(f"models:/{NAME}@best would be cnn-dms-")
    assert "best" not in connect(store).get_registered_model(NAME).aliases


def test_a_store_without_a_registry_costs_a_line(
    store: str, publish: Publish, make_trial: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def refuses(*_: Any, **__: Any) -> None:
        raise NotImplementedError("this store has no registry")

    publish(make_trial("dms", 0), 50.0, 50.0)
    monkeypatch.setattr(MlflowClient, "create_registered_model", refuses)
    assert register_best(store, "paper") == ["no model is registered: this store has no registry"]
