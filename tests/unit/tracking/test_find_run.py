"""A trial's run is found by its id, which its folder keeps, and by a search only where that is not known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dms_bench.config.suite import Suite
from dms_bench.config.trial import Trial
from dms_bench.tracking import Remembered, SuiteRun, TrialRun, connect, find_run, open_suite, statuses, trial_run


class Listening:
    """A client that notes what it is asked."""

    def __init__(self, client: Any, asked: list[str]) -> None:
        self._client, self._asked = client, asked

    def __getattr__(self, name: str) -> Any:
        self._asked.append(name)
        return getattr(self._client, name)


@pytest.fixture
def suite_run(store: str, make_suite: Callable[..., Suite]) -> SuiteRun:
    return open_suite(store, make_suite(), {})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []
    real = trial_run.make_client
    monkeypatch.setattr(trial_run, "make_client", lambda uri: Listening(real(uri), asked))
    return asked


@pytest.fixture
def opened(suite_run: SuiteRun, asked: list[str], tmp_path: Path) -> Callable[..., TrialRun]:
    def opened(trial: Trial, *, new: bool = False, file: Path = tmp_path / "work" / "mlflow_run") -> TrialRun:
        asked.clear()
        place = (suite_run.uri, suite_run.experiment_id, suite_run.parent_id)
        run = TrialRun(*place, trial, {}, Remembered(file, new=new))
        assert run.run_id is not None
        return run

    return opened


def test_neither_a_new_trial_nor_one_that_goes_on_is_searched_for(
    opened: Callable[..., TrialRun], make_trial: Callable[..., Trial], asked: list[str], tmp_path: Path
) -> None:
    first = opened(make_trial(), new=True)
    assert "create_run" in asked
    assert "search_runs" not in asked
    assert (tmp_path / "work" / "mlflow_run").read_text() == first.run_id
    # Its worker died, and the next one has the same orders.
    second = opened(make_trial(), new=True)
    assert second.run_id == first.run_id
    assert not {"search_runs", "create_run"} & set(asked)
    second.stop("enough")
    assert opened(make_trial()).already_finished
    assert asked == [], "the database's own keys lead to it"


def test_a_worker_that_died_as_its_run_was_created_makes_no_second_one(
    opened: Callable[..., TrialRun], make_trial: Callable[..., Trial], tmp_path: Path
) -> None:
    first = opened(make_trial(), new=True)
    (tmp_path / "work" / "mlflow_run").write_text("")
    assert opened(make_trial(), new=True).run_id == first.run_id
    assert (tmp_path / "work" / "mlflow_run").read_text() == first.run_id


def test_a_run_of_an_earlier_version_is_searched_for_once(
    opened: Callable[..., TrialRun], make_trial: Callable[..., Trial], asked: list[str], tmp_path: Path
) -> None:
    first = opened(make_trial(), new=True)
    (tmp_path / "work" / "mlflow_run").unlink()
    assert opened(make_trial()).run_id == first.run_id
    assert "search_runs" in asked
    assert opened(make_trial()).run_id == first.run_id
    assert "search_runs" not in asked


@pytest.mark.parametrize("through_mlflow", [False, True])
@pytest.mark.parametrize("kept", ["deleted", "another trial's", "unknown", "no id at all"])
def test_an_id_that_does_not_hold_is_not_believed(
    opened: Callable[..., TrialRun],
    make_trial: Callable[..., Trial],
    suite_run: SuiteRun,
    tmp_path: Path,
    kept: str,
    through_mlflow: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if through_mlflow:  # as a server is asked
        monkeypatch.setattr(find_run, "sqlite_path", lambda uri: None)
    ours = opened(make_trial(), new=True).run_id
    other = opened(make_trial(seed=1), new=True, file=tmp_path / "other").run_id
    if kept == "deleted":
        connect(suite_run.uri).delete_run(ours)
    ids = {"deleted": ours, "another trial's": other, "unknown": "0" * 32, "no id at all": "../../etc"}
    (tmp_path / "work" / "mlflow_run").write_text(str(ids[kept]))
    found = opened(make_trial()).run_id
    assert found != other
    assert (found == ours) == (kept != "deleted")
    assert (tmp_path / "work" / "mlflow_run").read_text() == found


def test_a_server_is_asked_once(
    opened: Callable[..., TrialRun],
    make_trial: Callable[..., Trial],
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(find_run, "sqlite_path", lambda uri: None)
    first = opened(make_trial(), new=True)
    first.stop("enough")
    again = opened(make_trial())
    assert (again.run_id, again.already_finished) == (first.run_id, True)
    assert asked == ["get_run"]


def test_trials_that_were_killed_have_a_run_already(
    opened: Callable[..., TrialRun], make_trial: Callable[..., Trial], store: str, tmp_path: Path
) -> None:
    opened(make_trial(), new=True)
    opened(make_trial(seed=1), new=True, file=tmp_path / "other").fail("loss is nan")
    assert statuses(store, "paper") == {make_trial().hash: "running", make_trial(seed=1).hash: "failed"}
    assert statuses(store, "another") == {}
