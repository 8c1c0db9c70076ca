from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dms_bench.config.suite import Suite
from dms_bench.config.trial import Trial
from dms_bench.errors import UserError
from dms_bench.tracking import TrialResult, TrialRun, connect, open_suite, reading
from dms_bench.tracking.reading import read_trials, suite_names
from dms_bench.tracking.store import has_tables

SUITES = ("one", "two")


@pytest.fixture
def filled(store: str, make_suite: Callable[[str], Suite], make_trial: Callable[..., Trial]) -> str:
    """A store with two suites, numbers of every kind, and an experiment of somebody else's."""
    for name in SUITES:
        suite = open_suite(store, make_suite(name), {"torch": "2"})
        for seed in range(4):
            run = TrialRun(suite.uri, suite.experiment_id, suite.parent_id, make_trial("dms", seed), {"torch": "2"})
            run.log("search", 1, {"loss": math.nan, "huge": math.inf, "exact": 1 / 3})
            run.log("search", 2, {"later": 2.0})
            if seed < 2:
                run.finish(
                    TrialResult(
                        metric="top1", value=70 + 1 / 3, validation=69 + 2 / 3, macs=10, params=5, supernet_macs=20,
                        supernet_params=10, targets={"macs": 10.0}, seed=seed,
                    )
                )  # fmt: skip
    client = connect(store)
    gone = read_trials(store, ["two"])[0]
    client.delete_run(gone.run_id)
    client.create_run(client.create_experiment("somebody else's"))
    return store


def as_dicts(trials: list[reading.Record]) -> dict[str, Any]:
    """Numbers as text, as nan is not equal to itself."""
    return {
        trial.run_id: {**vars(trial), "metrics": {name: repr(value) for name, value in trial.metrics.items()}}
        for trial in trials
    }


def test_tables_and_mlflow_say_the_same(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from_tables = as_dicts(read_trials(filled, SUITES))
    monkeypatch.setattr(reading, "sqlite_path", lambda uri: None)
    monkeypatch.setattr(reading, "_PAGE", 3)
    through_mlflow = as_dicts(read_trials(filled, SUITES))
    assert from_tables == through_mlflow
    assert len(from_tables) == 7
    assert any(trial["metrics"].get("search/loss") == "nan" for trial in from_tables.values())
    assert any(trial["metrics"].get("test/top1") == repr(70 + 1 / 3) for trial in from_tables.values())
    assert suite_names(filled) == ["one", "two"]


def test_the_validation_value_is_kept(filled: str) -> None:
    values = {trial.seed: trial.validation for trial in read_trials(filled, ["one"])}
    assert values == {0: 69 + 2 / 3, 1: 69 + 2 / 3, 2: None, 3: None}


def test_names_of_suites_are_the_same_either_way(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "sqlite_path", lambda uri: None)
    assert suite_names(filled) == ["one", "two"]


def test_tags_alone_are_tags_alone(filled: str) -> None:
    whole, tags = (
        {trial.run_id: trial for trial in read_trials(filled, ["one"], tags_only=only)} for only in (False, True)
    )
    assert {run: trial.tags for run, trial in whole.items()} == {run: trial.tags for run, trial in tags.items()}
    assert not any(trial.params or trial.metrics for trial in tags.values())
    assert all(trial.params for trial in whole.values())


def test_a_suite_that_is_not_there_has_no_trials(filled: str) -> None:
    assert read_trials(filled, ["three"]) == []


def test_a_damaged_database_is_named_in_one_line(filled: str) -> None:
    with sqlite3.connect(filled.removeprefix("sqlite:///")) as database:
        database.execute("ALTER TABLE latest_metrics RENAME TO elsewhere")
    with pytest.raises(UserError, match=r"^tracking sqlite:.*cannot be read: no such table: latest_metrics$"):
        read_trials(filled, ["one"])


KILLED = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("PRAGMA cache_size = 5")
database.execute("CREATE TABLE filler(x)")
database.executemany("INSERT INTO filler VALUES (?)", [("y" * 500,)] * 2000)
database.commit()
database.execute("UPDATE filler SET x = 'z'")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_store_whose_writer_was_killed_is_rolled_back_and_read(tmp_path: Path) -> None:
    """As workers are where somebody ends a run; SQLite then has a journal to roll back before anything is read."""
    path = tmp_path / "mlflow.db"
    connect(f"sqlite:///{path}", create=True)
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert path.with_name("mlflow.db-journal").stat().st_size
    with (
        closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as plain,
        pytest.raises(sqlite3.OperationalError),
    ):
        plain.execute("SELECT count(*) FROM sqlite_master")
    assert has_tables(path)
    assert suite_names(f"sqlite:///{path}") == []
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM filler WHERE x = 'z'").fetchone() == (0,)
