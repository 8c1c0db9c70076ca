"""A trained network in a store, as `dms-bench run` leaves it, made in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dms_bench.config import Resources, Trial
from dms_bench.config.suite import Suite
from dms_bench.trial.group import alone
from dms_bench.trial.publish import publish_result
from dms_bench.trial.run import run_trial
from dms_bench.trial.storage import WorkFolder

ENVIRONMENT = {"torch": "2.15.0", "git_commit": "0123abcd", "cpu": "a processor"}


def run_and_publish(uri: str, trial: Trial, folder: Path) -> str:
    """Run a trial and put it into a store, without Ray; return its name."""
    from dms_bench.tracking import TrialRun, open_suite

    work = WorkFolder(folder)
    run_trial(trial, work, alone(Resources()))
    run = open_suite(uri, digits_suite(), {})
    publish_result(work, TrialRun(run.uri, run.experiment_id, run.parent_id, trial, ENVIRONMENT))
    return trial.name


def digits_suite() -> Suite:
    """A suite that its trials are published in."""
    return Suite.model_construct(name="deploy", description="Made for a test.", experiments=[])


def digits_trial(**fields: Any) -> Trial:
    """A narrow ResNet on scikit-learn's digits, trained for seconds."""
    return Trial.model_validate(
        {
            "experiment": "digits",
            "task": {"kind": "classification", "image_size": 32, "channels": 3, "data": {"name": "digits"}},
            "supernet": {"model": "resnet18", "args": {"channels": [8, 16, 16, 32]}},
            "budget": {"kind": "macs", "target": "50%"},
            "method": "l1",
            "retrain": {"epochs": 3, "lr": 0.1, "batch_size": 64},
            "seed": 1,
            **fields,
        }
    ).canonical()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """URI of a store, and the name of its one trial: a network that knows digits."""
    from dms_bench.tracking import connect

    folder = tmp_path_factory.mktemp("trained")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        connect(uri, create=True)
        return uri, run_and_publish(uri, digits_trial(), folder / "work")


@pytest.fixture
def publishing(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Trial], tuple[str, str]]:
    """Return a function that runs a trial, and returns the URI of its store and its name."""
    monkeypatch.chdir(tmp_path)
    return lambda trial: (store, run_and_publish(store, trial, tmp_path / "work"))
