"""One search for several budgets, from the suite to its board: who computes what, once, and what it costs whom."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from dms_bench.cli import app
from dms_bench.config import Suite, Trial, load_suite, resolve
from dms_bench.methods.gradient.dms import DmsSearch
from dms_bench.runtime.run import run_suite
from dms_bench.tracking import TrialResult
from dms_bench.trial.meter import costs
from dms_bench.trial.plan import plan, total_macs
from dms_bench.trial.storage import SuiteFolder, WorkFolder
from dms_bench.trial.work import search_hash

SHARES = ["60%", "30%"]


@pytest.fixture(autouse=True)
def alone(here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def suite_of(methods: list[Any], **changes: Any) -> Suite:
    recipe = {"epochs": 1, "lr": 0.05, "batch_size": 16}
    experiment = {
        "name": "e",
        "task": {"kind": "classification", "data": {"name": "glyphs", "train": 160, "val": 40, "test": 40}},
        "supernet": {"model": "resnet18", "args": {"channels": [8, 16, 24, 32]}},
        "pipeline": "DMSp",
        "pretrain": recipe,
        "search": recipe | {"epochs": 2},
        "retrain": recipe,
        "sweep": {"grid": {"budget": [{"kind": "macs", "target": share} for share in SHARES], "method": methods}},
    }
    path = Path("one.yaml")
    path.write_text(yaml.safe_dump({"name": "one", "experiments": [experiment | changes]}))
    return load_suite(path)


def folder(trial: Trial) -> WorkFolder:
    return SuiteFolder.of("runs", "one").trial(trial.hash)


def result(trial: Trial) -> TrialResult:
    return TrialResult.model_validate_json(folder(trial).result.read_text())


def spent(trial: Trial, stage: str) -> float:
    return sum(cost.macs or 0.0 for cost in result(trial).costs if cost.stage == stage)


def losses(trial: Trial) -> list[float]:
    history = json.loads((folder(trial).path / "search" / "done.json").read_text())["history"]
    return [epoch["train_loss"] for epoch in history]


def board() -> list[dict[str, str]]:
    text = CliRunner().invoke(app, ["leaderboard", "--suite", "one", "--format", "csv"]).stdout
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("pipeline", ["DMSp", "DMSnp", pytest.param("DMSp-", marks=pytest.mark.slow)])
def test_trials_take_up_what_one_search_found(pipeline: str) -> None:
    suite = suite_of([{"kind": "dms", "budgets_in_one": True}, "dms"], pipeline=pipeline)
    assert run_suite(suite) == 0
    trials = resolve(suite)
    shared = [trial for trial in trials if trial.method.searched_budgets]
    (search,) = (Path("runs") / "one" / "searches").iterdir()
    assert {search_hash(trial) for trial in shared} == {search.name}
    for position, trial in enumerate(shared):
        assert trial.budget.label() == f"macs {SHARES[position]}"
        found = (search / "search" / f"{position}-architecture.json").read_text()
        assert (folder(trial).path / "search" / "architecture.json").read_text() == found
        assert not result(trial).budget_missed
        assert result(trial).macs / result(trial).supernet_macs == pytest.approx([0.6, 0.3][position], rel=0.01)
    # The search for the smallest budget is the one that it would be alone; so is the trial that follows.
    (alone,) = (trial for trial in trials if not trial.method.searched_budgets and trial.budget.label() == "macs 30%")
    assert result(alone).value == result(shared[1]).value
    assert losses(alone) == losses(shared[1])
    if pipeline != "DMSnp":
        ours, theirs = (load_file(folder(t).path / "search" / "weights.safetensors") for t in (alone, shared[1]))
        assert all(bool((ours[name] == theirs[name]).all()) for name in ours)
    # Each pays a half of it.
    (whole,) = (cost.macs for cost in costs(WorkFolder(search)) if cost.stage == "search")
    assert whole == spent(alone, "search")
    assert [spent(trial, "search") for trial in shared] == pytest.approx([whole / 2, whole / 2])
    rows = {(row["method"], row["budget"]): row for row in board()}
    assert set(rows) == {(method, f"macs {share}") for method in ("dms", "dms, budgets in one") for share in SHARES}


def test_a_search_that_failed_fails_its_trials_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = suite_of([{"kind": "dms", "budgets_in_one": True}, "uniform"])
    with monkeypatch.context() as broken:
        broken.setattr(DmsSearch, "search_in_one", lambda *arguments: 1 / 0)
        assert run_suite(suite) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "the search for its budget and others failed: ZeroDivisionError: division by zero" in printed
    assert {row["method"]: (row["n"], row["failed"]) for row in board()} == {
        "uniform": ("1", "0"), "dms, budgets in one": ("0", "1"),
    }  # fmt: skip
    assert run_suite(suite) == 0
    assert all(row["failed"] == "0" for row in board())


def test_what_is_done_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = suite_of([{"kind": "router", "budgets_in_one": True}])
    assert run_suite(suite) == 0
    last = resolve(suite)[-1]
    folder(last).result.unlink()
    for stage in ("search", "retrain"):
        (folder(last).path / stage / "done.json").unlink()
    first = (Path("runs") / "one" / "searches" / str(search_hash(last)) / "search" / "done.json").stat().st_mtime_ns
    monkeypatch.setattr(DmsSearch, "search_in_one", lambda *arguments: 1 / 0)
    # Another store, as the first one knows that all is done.
    assert run_suite(suite.model_copy(update={"tracking": "sqlite:///other.db"})) == 0
    again = (Path("runs") / "one" / "searches" / str(search_hash(last)) / "search" / "done.json").stat().st_mtime_ns
    assert first == again
    assert folder(last).result.exists()


def test_a_plan_counts_the_search_once() -> None:
    together = total_macs(plan(suite_of([{"kind": "dms", "budgets_in_one": True}])))
    apart = plan(suite_of(["dms"]))
    (search, *_), (other, *_) = ([s.training_macs for s in trial.stages if s.stage == "search"] for trial in apart)
    assert search == other
    assert total_macs(apart) - together == pytest.approx(search)
