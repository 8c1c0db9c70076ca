"""What a campaign of faults would notice: its checks refuse what they are there for."""

import json
import random
import time
from types import SimpleNamespace

import pytest

from dms_bench.trial.meter import costs
from tests.faults import arena as module
from tests.faults.arena import EPOCHS, PAUSE, STEPS, Arena, BrokenPromiseError


@pytest.fixture
def arena(tmp_path, monkeypatch):
    """A suite whose trials have ended as they should, on paper."""
    arena = Arena(tmp_path / "arena", "suite", random.Random(0))
    arena.began = time.monotonic() - 1000
    journal = []
    for seed in range(3):
        folder = arena.suite.trial(f"hash{seed}")
        seconds = {stage: epochs * STEPS * PAUSE for stage, epochs in EPOCHS.items()}
        _attempt(folder, 1, seconds)
        for stage, epochs in EPOCHS.items():
            journal += [f"7 epoch {folder.stage(stage).path} {epoch + 1}" for epoch in range(epochs)]
        _result(folder)
    arena.journal.write_text("\n".join(journal))
    monkeypatch.setattr(module, "read_trials", lambda uri, suites: arena.runs)
    monkeypatch.setattr(Arena, "board", lambda self: "the board")
    arena.runs = [SimpleNamespace(hash=f"hash{seed}") for seed in range(3)]
    return arena


def _attempt(folder, number, seconds):
    folder.attempts.mkdir(parents=True, exist_ok=True)
    content = {"device": "cpu", "kind": "cpu", "devices": 1, "seconds": seconds}
    (folder.attempts / f"{number:04d}.json").write_text(json.dumps(content))


def _result(folder):
    sizes = dict.fromkeys(("macs", "params", "supernet_macs", "supernet_params"), 1)
    spent = [cost.model_dump() for cost in costs(folder)]
    content = {"metric": "accuracy", "value": 0.5, "targets": {}, "seed": 0, "costs": spent, **sizes}
    folder.result.write_text(json.dumps(content))


def test_a_suite_that_ended_well_passes(arena):
    arena.check("the board")


def test_another_leaderboard_is_noticed(arena):
    with pytest.raises(BrokenPromiseError, match="another leaderboard"):
        arena.check("the undisturbed board")


def test_a_lost_trial_is_noticed(arena):
    arena.trials()[0].result.unlink()
    with pytest.raises(BrokenPromiseError, match="2 trials of 3"):
        arena.check("the board")


def test_a_trial_counted_twice_is_noticed(arena):
    arena.runs.append(arena.runs[0])
    with pytest.raises(BrokenPromiseError, match="runs in MLflow"):
        arena.check("the board")


def test_lost_work_that_costs_nothing_is_noticed(arena):
    folder = arena.trials()[0]
    again = [f"8 epoch {folder.stage('retrain').path} {epoch}" for epoch in range(20)]
    arena.journal.write_text("\n".join([arena.journal.read_text(), *again]))
    with pytest.raises(BrokenPromiseError, match=r"retrain cost 2\.40 s, trained 14\.40 s in 1 attempts"):
        arena.check("the board")
    _attempt(folder, 2, {"retrain": 12.0})
    with pytest.raises(BrokenPromiseError, match="in 2 attempts"):
        arena.check("the board")  # the result does not know of the second attempt
    _result(folder)
    arena.check("the board")


@pytest.mark.parametrize(("seconds", "problem"), [(86400.0, "within"), (0.0, r"cost 0\.00 s, trained")])
def test_a_cost_by_a_clock_that_jumped_is_noticed(arena, seconds, problem):
    folder = arena.trials()[0]
    _attempt(folder, 1, {"search": seconds, "retrain": seconds})
    _result(folder)
    with pytest.raises(BrokenPromiseError, match=problem):
        arena.check("the board")


def test_a_result_that_forgets_the_attempts_before_is_noticed(arena):
    folder = arena.trials()[0]
    _attempt(folder, 1, {"search": 0.01, "retrain": 2.4})
    _attempt(folder, 2, {})
    _result(folder)
    with pytest.raises(BrokenPromiseError, match=r"search cost 0\.01 s, trained 1\.80 s in 2 attempts"):
        arena.check("the board")


def test_nobody_waits_for_what_no_driver_will_do(arena):
    arena.wait_for(lambda: True, "nothing")
    begun = time.monotonic()
    with pytest.raises(BrokenPromiseError, match="epochs: not before the driver ended"):
        arena.wait_for(lambda: False, "epochs")
    assert time.monotonic() - begun < 10
