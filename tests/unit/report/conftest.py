"""A store with a suite of known numbers, written through the tracking as a run writes it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dms_bench.config.suite import Suite
from dms_bench.config.trial import Trial
from dms_bench.tracking import TrialRun, open_suite
from tests.unit.report.published import CEILING, ENVIRONMENT, VALUES, Publish, publisher


@pytest.fixture
def publish(store: str, make_suite: Callable[..., Suite]) -> Publish:
    """Publish trials into a store of the test's own (its URI is the fixture `store`)."""
    return publisher(open_suite(store, make_suite(), ENVIRONMENT))


@pytest.fixture(scope="session")
def board_uri(
    empty_store: Path,
    tmp_path_factory: pytest.TempPathFactory,
    make_trial: Callable[..., Trial],
    make_suite: Callable[..., Suite],
) -> str:
    """URI of a store with the suite `quick`: two budgets, a failure, a missed budget and a supernet."""
    folder = tmp_path_factory.mktemp("board")
    shutil.copy(empty_store, folder / "mlflow.db")
    run = open_suite(f"sqlite:///{folder / 'mlflow.db'}", make_suite("quick"), ENVIRONMENT)
    publish = publisher(run)
    for (method, target), values in VALUES.items():
        for seed, value in values.items():
            publish(make_trial(method, seed, target), value, budget_missed=(method, seed) == ("uniform", 1))
    for seed, value in CEILING.items():
        for target in ("30%", "50%"):
            publish(make_trial("supernet", seed, target), value)
    publish(make_trial("random", 1, "50%"), None)
    # Interrupted: the run stays open.
    TrialRun(run.uri, run.experiment_id, run.parent_id, make_trial("random", 2, "50%"), ENVIRONMENT)
    return run.uri
