"""What a Ray session asks of Ray."""

import os
import signal
from unittest.mock import MagicMock

import pytest
import ray
from ray.tune.execution import experiment_state

from dms_bench.errors import UserError
from dms_bench.runtime.session import _ENVIRONMENT, ray_session


@pytest.fixture
def asked(monkeypatch):
    """Let Ray start nothing; the options that it was started with, and the environment in which."""
    asked = {}
    monkeypatch.setattr(ray, "init", lambda **options: asked.update(options=options, environment=dict(os.environ)))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return asked


def test_what_ray_is_asked_for_reaches_it_before_it_starts_and_leaves_what_the_user_set(monkeypatch, asked):
    others = {name: value for name, value in os.environ.items() if name not in {*_ENVIRONMENT, "RAY_ADDRESS"}}
    users = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "7", "PYTHONDONTWRITEBYTECODE": "1"}
    monkeypatch.setattr(os, "environ", others | users)
    with ray_session():
        pass
    seen = asked["environment"]
    assert {name: seen[name] for name in _ENVIRONMENT} == _ENVIRONMENT | {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "7"}
    assert "PYTHONDONTWRITEBYTECODE" not in seen


def test_ray_is_this_machines_own_without_a_cluster(monkeypatch, asked):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with ray_session():
        pass
    assert (asked["options"]["address"], asked["options"]["include_dashboard"]) == ("local", False)


def test_the_nodes_of_a_cluster_are_told_what_this_machine_is(monkeypatch, asked):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "7")
    with ray_session():
        pass
    assert "address" not in asked["options"]  # Ray reads it itself
    told = asked["options"]["runtime_env"]["env_vars"]
    assert told == {name: asked["environment"][name] for name in _ENVIRONMENT}
    assert told["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] == "7"


def test_a_session_that_is_terminated_is_interrupted_and_ends_ray(monkeypatch, asked):
    ended = []
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), ray_session():
            signal.raise_signal(signal.SIGTERM)
        assert ended == [True]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("error", [Exception, ValueError, ConnectionError, TimeoutError])
@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_a_ray_that_does_not_start_is_one_readable_line(monkeypatch, error, address):
    def init(**_):
        raise error("The current node timed out during startup.\nThis could happen because\nof many things")

    ended = []
    monkeypatch.setenv("RAY_ADDRESS", address) if address else monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    where = r"cannot join the Ray cluster 10\.0\.0\.1:6379" if address else "Ray does not start on this machine"
    with pytest.raises(UserError, match=rf"^{where}: The current node timed out during startup\.$"), ray_session():
        pytest.fail("there is no session")
    assert ended == [True]  # what had started of it


def test_tune_writes_no_snapshots_of_all_trials_on_the_way(monkeypatch):
    now, saved = [0.0], []
    monkeypatch.setattr(experiment_state.time, "monotonic", lambda: now[0])
    period = _ENVIRONMENT["TUNE_GLOBAL_CHECKPOINT_S"]
    manager = experiment_state._ExperimentCheckpointManager(storage=MagicMock(), checkpoint_period=period)
    for now[0] in (0.0, 1e3, 1e6, 1e9):  # seconds
        manager.sync_up_experiment_state(lambda: saved.append(now[0]))
    assert saved == [0.0]
    manager.sync_up_experiment_state(lambda: saved.append(now[0]), force=True)
    assert saved == [0.0, 1e9]
