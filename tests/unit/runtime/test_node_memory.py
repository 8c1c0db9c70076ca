"""A node without memory: fewer at once, and an end to attempts. The driver and Tune's error, with Ray left out."""

import io
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from ray.exceptions import OutOfMemoryError
from rich.console import Console

from dms_bench.errors import TrialFailure
from dms_bench.runtime import nodes, schedule, session
from dms_bench.runtime.driver import Driver
from dms_bench.runtime.node_memory import Crowd, NodeOutOfMemoryError
from dms_bench.trial.storage import SuiteFolder


def work(key):
    return SimpleNamespace(key=key)


def test_half_of_what_was_under_way_goes_on():
    crowd = Crowd()
    assert crowd.most is None
    for key in "abcdef":
        crowd.started(work(key))
    crowd.ended(work("a"))
    assert crowd.thin(3) == []
    assert crowd.most == 2
    assert [left.key for left in crowd.left([work(key) for key in "abc"])] == ["b", "c"]


def test_what_runs_out_of_memory_alone_has_its_attempts():
    crowd, greedy = Crowd(), work("a")
    for attempt in range(3):
        crowd.started(greedy)
        assert crowd.thin(3) == ([greedy] if attempt == 2 else [])
        assert crowd.most == 1


def test_memory_that_is_short_before_anything_runs_is_no_endless_loop():
    crowd = Crowd()
    crowd.thin(2)
    with pytest.raises(TrialFailure, match="no memory for any trial"):
        crowd.thin(2)


def test_tune_s_error_is_known_by_where_it_comes_from():
    def crash():
        try:
            raise RuntimeError("Caught unexpected exception") from OutOfMemoryError("low on memory")
        except RuntimeError:
            raise RuntimeError("met by the cleanup")  # noqa: B904 - as Tune's own has it

    with pytest.raises(RuntimeError, match="cleanup") as error:
        crash()
    assert schedule._ran_out_of_memory(error.value)
    assert not schedule._ran_out_of_memory(RuntimeError("something else"))


def test_a_trial_without_memory_does_not_end_the_others(make_suite, make_trial, store, tmp_path, monkeypatch):
    trials = [make_trial(seed=seed) for seed in range(3)]
    greedy = trials[1].hash
    sessions = []

    def run_all(works, scratch, observer, most):
        if not works:
            return
        sessions.append((most, [work.trial.seed for work in works]))
        for under_way in works[: most or 2]:
            observer.started(under_way)
        for done in works:
            if done.key == greedy:
                raise NodeOutOfMemoryError
            done.folder.fail("did not converge")
            observer.ended(done, False)
            observer.started(works[-1])

    monkeypatch.setattr(session, "ray_session", nullcontext)
    monkeypatch.setattr(nodes, "check_nodes", lambda folder, uri: None)
    monkeypatch.setattr(schedule, "run_all", run_all)
    console = Console(file=io.StringIO(), width=200)
    driver = Driver(make_suite("suite"), SuiteFolder(tmp_path / "suite"), store, trials, [], console)
    assert driver.run() == 1
    assert sessions == [(None, [0, 1, 2]), (1, [1, 2]), (1, [1, 2]), (1, [1, 2]), (1, [2])]
    lines = console.file.getvalue().splitlines()
    assert sum("ran out of memory; going on with at most 1 at once" in line for line in lines) == 4
    assert sum("its process died 3 times" in line for line in lines) == 1
    assert lines[-2] == "suite: 3 failed"
