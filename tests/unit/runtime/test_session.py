"""What a Ray session asks of Ray."""

import os
from unittest.mock import MagicMock

import pytest
import ray
from ray.tune.execution import experiment_state

from dms_bench.errors import UserError
from dms_bench.runtime.session import _ENVIRONMENT, ray_session


def test_what_ray_is_asked_for_reaches_it_before_it_starts_and_leaves_what_the_user_set(monkeypatch):
    seen = {}
    others = {name: value for name, value in os.environ.items() if name not in {*_ENVIRONMENT, "RAY_ADDRESS"}}
    monkeypatch.setattr(os, "environ", others | {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "7"})
    monkeypatch.setattr(ray, "init", lambda **_: seen.update(os.environ))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with ray_session():
        pass
    assert {name: seen[name] for name in _ENVIRONMENT} == _ENVIRONMENT | {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "7"}


@pytest.mark.parametrize("error", [Exception, ValueError, ConnectionError, TimeoutError])
@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_a_ray_that_does_not_start_is_one_readable_line(monkeypatch, error, address):
    def init(**_):
        raise error("The current node timed out during startup.\nThis could happen because\nof many things")

    monkeypatch.setenv("RAY_ADDRESS", address) if address else monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    where = r"cannot join the Ray cluster 10\.0\.0\.1:6379" if address else "Ray does not start on this machine"
    with pytest.raises(UserError, match=rf"^{where}: The current node timed out during startup\.$"), ray_session():
        pytest.fail("there is no session")


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
