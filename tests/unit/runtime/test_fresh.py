"""A fresh run forgets what the suite's own trials came to, once nothing of the suite is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from dms_bench import tracking
from dms_bench.config import Suite, parse_suite, resolve
from dms_bench.errors import UserError
from dms_bench.runtime.driver import Driver
from dms_bench.runtime.run import run_suite
from dms_bench.runtime.sampling import sampled_sweeps
from dms_bench.trial.storage import SuiteFolder, write_atomic


@pytest.fixture
def make(store: str, tmp_path: Path) -> Callable[..., Suite]:
    """Return a function that makes a suite of two trials, and of samples."""

    def make(model: str = "mlp") -> Suite:
        experiment = {
            "task": "toy",
            "supernet": {"model": model},
            "budget": {"kind": "macs", "target": "50%"},
            "method": "half",
            "search": {"epochs": 1},
            "retrain": {"epochs": 1},
        }
        sample = {"samples": 2, "space": {"retrain.lr": {"low": 0.1, "high": 1.0}}}
        return parse_suite(
            {
                "name": "toys",
                "storage": str(tmp_path),
                "tracking": store,
                "experiments": [
                    experiment | {"name": "grid", "sweep": {"grid": {"seed": [0, 1]}}},
                    experiment | {"name": "sampled", "sweep": {"sample": sample}},
                ],
            }
        )

    return make


@pytest.fixture
def unpublished(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Let drivers do nothing; the trials whose runs were deleted from the tracking store."""
    deleted: list[set[str]] = []
    monkeypatch.setattr(Driver, "run", lambda self: 0)
    monkeypatch.setattr(tracking, "forget", lambda uri, suite, trials: deleted.append(set(trials)))
    return deleted


def results_of(suite: Suite) -> tuple[SuiteFolder, set[str]]:
    """Let every trial of a suite have a result, one sample more than are wanted now, and a trial of another time."""
    folder = SuiteFolder.of(suite.storage, suite.name)
    (sweep,) = sampled_sweeps(suite, folder.path)
    for rate in (0.3, 0.5, 0.7):
        sweep.note({"retrain.lr": rate})
    own = {trial.hash for trial in (*resolve(suite), *sweep.all_drawn)}
    assert len(own) == 5
    for hash_ in (*own, "another"):
        write_atomic(folder.trial(hash_).result, "{}")
    return folder, own


def left(folder: SuiteFolder) -> set[str]:
    return {path.name for path in (folder.path / "trials").iterdir()}


def run(suite: Suite, *, fresh: bool) -> int:
    return run_suite(suite, fresh=fresh, console=Console(file=io.StringIO()))


def test_the_suites_own_trials_are_forgotten_and_no_others(
    make: Callable[..., Suite], unpublished: list[set[str]]
) -> None:
    suite = make()
    folder, own = results_of(suite)
    assert run(suite, fresh=True) == 0
    assert left(folder) == {"another"}
    assert unpublished == [own]
    (sweep,) = sampled_sweeps(suite, folder.path)
    assert sweep.trials == [], "drawn anew"


def test_nothing_is_forgotten_unless_asked_for(make: Callable[..., Suite], unpublished: list[set[str]]) -> None:
    suite = make()
    folder, own = results_of(suite)
    assert run(suite, fresh=False) == 0
    assert left(folder) == {*own, "another"}
    assert unpublished == []


def test_a_fresh_run_that_is_refused_forgets_nothing(make: Callable[..., Suite], unpublished: list[set[str]]) -> None:
    suite = make("mpl")
    folder, own = results_of(suite)
    with pytest.raises(UserError, match="unknown model 'mpl'"):
        run(suite, fresh=True)
    assert left(folder) == {*own, "another"}
    assert unpublished == []
