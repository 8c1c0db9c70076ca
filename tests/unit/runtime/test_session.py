"""What a Ray session asks of Ray."""

from unittest.mock import MagicMock

from ray.tune.execution import experiment_state

from dms_bench.runtime.session import _ENVIRONMENT


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
