"""How MLflow's pages open a suite: as training, with results for columns, beginning with a description."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dms_bench.config.suite import Suite
from dms_bench.tracking import SuiteRun, connect, names, open_suite
from dms_bench.tracking.view import address, view_tag

KIND = "mlflow.experimentKind"


@pytest.fixture
def suite_run(store: str, make_suite: Callable[..., Suite]) -> SuiteRun:
    return open_suite(store, make_suite(), {})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "custom_model_development"),
        ("", "custom_model_development"),
        ("genai_development_inferred", "custom_model_development"),
        ("genai_development", "genai_development"),
    ],
)
def test_experiments_that_exist_open_as_training_unless_somebody_chose(
    store: str, make_suite: Callable[..., Suite], before: str | None, after: str
) -> None:
    client = connect(store)
    experiment = client.create_experiment("paper", tags={} if before is None else {KIND: before})
    assert open_suite(store, make_suite(), {}).experiment_id == experiment
    assert client.get_experiment(experiment).tags[KIND] == after


def test_a_new_experiment_opens_as_training(suite_run: SuiteRun) -> None:
    assert connect(suite_run.uri).get_experiment(suite_run.experiment_id).tags[KIND] == "custom_model_development"


def test_the_view_is_of_trials_with_their_results_as_columns(suite_run: SuiteRun) -> None:
    suite_run.show({"top1": True, "error": False})
    experiment = connect(suite_run.uri).get_experiment(suite_run.experiment_id)
    view = json.loads(experiment.tags["mlflow.sharedViewState.results"])
    assert view["name"] == "Results"
    assert view["createdAt"] == experiment.creation_time
    state = json.loads(view["state"])
    assert state["searchFilter"] == f"tags.`{names.TRIAL}` != ''"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`test/top1`", False)
    assert state["selectedColumns"] == [
        "tags.`dms.budget`",
        "tags.`dms.method_label`",
        "tags.`dms.seed`",
        "metrics.`test/top1`",
        "metrics.`test/error`",
        "metrics.`macs`",
        "metrics.`params`",
        "metrics.`latency_ms`",
        "metrics.`search_training_macs`",
    ]
    charts = [(chart["yaxis"]["key"], chart["xaxis"]["key"]) for chart in state["compareRunCharts"]]
    assert charts[0] == ("test/top1", "macs")
    assert ("test/error", "params") in charts
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} <= sections
    assert len(experiment.tags["mlflow.sharedViewState.results"]) < 5000


def test_a_measure_that_is_better_when_small_comes_smallest_first() -> None:
    assert json.loads(json.loads(view_tag({"error": False}, 0)[1])["state"])["orderByAsc"] is True


@pytest.mark.parametrize(
    ("uri", "beginning"),
    [
        ("http://ann:s3cret@mlflow.example:5000", "http://***@mlflow.example:5000/#/experiments/7/runs?"),
        ("sqlite:////a/mlflow.db", "http://127.0.0.1:5000/#/experiments/7/runs?"),
        ("postgresql://ann:s3cret@db/mlflow", "http://127.0.0.1:5000/#/experiments/7/runs?"),
    ],
)
def test_the_address_of_the_view_holds_no_secret(uri: str, beginning: str) -> None:
    found = address(uri, "7")
    assert found.startswith(beginning)
    assert "viewStateShareKey=results" in found
    assert "s3cret" not in found
    assert ("mlflow ui --backend-store-uri" in found) != uri.startswith("http")


def test_a_description_is_cut_at_a_line_and_holds_no_secret(suite_run: SuiteRun) -> None:
    suite_run.describe("of http://ann:s3cret@host/\n" + "| a | row |\n" * 1000)
    note = connect(suite_run.uri).get_run(suite_run.parent_id).data.tags[names.NOTE]
    assert "s3cret" not in note
    assert len(note) <= 5000
    lines = note.splitlines()
    assert lines[-1] == "… `dms-bench leaderboard` shows all."
    assert lines[-3] == "| a | row |"
    suite_run.describe("x" * 9000)
    assert len(connect(suite_run.uri).get_run(suite_run.parent_id).data.tags[names.NOTE]) <= 5000
