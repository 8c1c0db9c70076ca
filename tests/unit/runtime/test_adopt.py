"""Results under a trial's former hash are found under its present one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dms_bench.config import Suite, Trial, parse_suite, resolve
from dms_bench.runtime.adopt import adopt
from dms_bench.tracking import TrialResult, TrialRun, finished, open_suite
from dms_bench.tracking.reading import read_trials
from dms_bench.trial.storage import SuiteFolder, write_atomic
from dms_bench.trial.work import supernet_hash

RESULT = TrialResult(
    metric="top1", value=70.0, macs=1, params=1, supernet_macs=2, supernet_params=2, targets={"macs": 1.0}, seed=0
)


@pytest.fixture
def suite(store: str, tmp_path: Path) -> Suite:
    data = {"name": "timm", "root": "/data/somewhere/cars", "classes": 5, "workers": 9}
    return parse_suite(
        {
            "name": "cars",
            "storage": str(tmp_path),
            "tracking": store,
            "experiments": [
                {
                    "name": "pictures",
                    "task": {"kind": "classification", "data": data},
                    "supernet": {"model": "resnet18"},
                    "pipeline": "DMSp",
                    "pretrain": {"epochs": 1, "lr": 0.1},
                    "retrain": {"epochs": 1, "lr": 0.1},
                    "method": "l1",
                    "budget": {"kind": "macs", "target": "50%"},
                    "sweep": {"grid": {"seed": [0, 1, 2]}},
                }
            ],
        }
    )


def put(trials: list[Trial], folder: SuiteFolder, store: str, suite: Suite) -> None:
    """Leave what a version before left: the first is finished, the second is under way, the third was never run."""
    run = open_suite(store, suite, {})
    for trial, ended in zip(trials[:2], (True, False), strict=True):
        former = trial.former_hash
        assert former is not None
        write_atomic(folder.trial(former).path / "search" / "checkpoint", "epoch 1")
        known = trial.model_copy()
        known.__dict__["hash"] = former
        trial_run = TrialRun(run.uri, run.experiment_id, run.parent_id, known, {})
        if ended:
            write_atomic(folder.trial(former).result, "{}")
            trial_run.finish(RESULT)
    before = supernet_hash(trials[0], former=True)
    assert before is not None
    write_atomic(folder.supernet(before).path / "pretrain" / "weights", "trained")


def test_what_a_version_before_left_is_found(suite: Suite, store: str) -> None:
    trials, folder = resolve(suite), SuiteFolder.of(suite.storage, suite.name)
    assert len({trial.former_hash for trial in trials}) == 3
    put(trials, folder, store, suite)
    assert trials[0].hash not in finished(store, suite.name)

    assert adopt(trials, folder, store, suite.name) == 2
    assert finished(store, suite.name) == {trials[0].hash: "finished"}
    assert folder.trial(trials[0].hash).result.exists()
    assert (folder.trial(trials[1].hash).path / "search" / "checkpoint").read_text() == "epoch 1"
    assert not folder.trial(trials[2].hash).path.exists()
    shared = supernet_hash(trials[0])
    assert shared is not None
    assert (folder.supernet(shared).path / "pretrain" / "weights").exists()
    runs = {record.hash: record.tags["dms.trial_before"] for record in read_trials(store, [suite.name])}
    assert runs == {trial.hash: trial.former_hash for trial in trials[:2]}

    assert adopt(trials, folder, store, suite.name) == 0, "nothing is left to do"


def test_what_is_known_by_its_present_hash_stays(suite: Suite, store: str) -> None:
    trials, folder = resolve(suite), SuiteFolder.of(suite.storage, suite.name)
    put(trials, folder, store, suite)
    write_atomic(folder.trial(trials[0].hash).result, "mine")
    run = open_suite(store, suite, {})
    TrialRun(run.uri, run.experiment_id, run.parent_id, trials[0], {}).finish(RESULT)
    assert adopt(trials[:1], folder, store, suite.name) == 0
    assert folder.trial(trials[0].hash).result.read_text() == "mine"
    former = trials[0].former_hash
    assert former is not None
    assert folder.trial(former).path.exists()
    assert set(finished(store, suite.name)) == {trials[0].hash, former}


def test_a_store_that_is_not_there_has_nothing(suite: Suite, tmp_path: Path) -> None:
    folder = SuiteFolder.of(suite.storage, suite.name)
    assert adopt(resolve(suite), folder, f"sqlite:///{tmp_path}/none.db", suite.name) == 0
    assert not (tmp_path / "none.db").exists()
