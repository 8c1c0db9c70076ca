"""The suites that compare methods, one per task, end to end: their smoke variants, and the boards that those fill.

All but Ray: the work is done in this process, one piece after the other, which takes a third of the time that its
processes take to start and to share two cores. What Ray does with work is `test_run.py`'s.
"""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dms_bench.cli import app
from dms_bench.config import Suite, load_suite, resolve
from dms_bench.config.plugins import METHODS, registered
from dms_bench.runtime.run import run_suite

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
#: Suite, profile, and how many of its experiments.
QUICK = [("baselines", None, 1), ("detection", "rivals", 1), ("language", None, 1)]
SLOW = [
    ("baselines", None, 2),
    ("detection", None, 1),  # DMS again, one ratio, and a designed network
    ("discrete", None, 1),
    ("detection", "pretrained", 1),  # the same methods, from real weights
    ("language", "frozen", 1),  # the same methods, without finetuning
]


def smoke(name: str, profile: str | None, experiments: int) -> Suite:
    suite = load_suite(BENCHMARKS / f"{name}.yaml", profile=profile, smoke=True)
    return suite.model_copy(update={"experiments": suite.experiments[:experiments]})


def test_all_methods_are_in_the_quick_ones() -> None:
    kinds = {trial.method.kind for suite in QUICK for trial in resolve(smoke(*suite))}
    assert {kind for kind, spec in registered(METHODS).items() if spec.__module__.startswith("dms_bench.")} == kinds


@pytest.mark.parametrize(("name", "profile", "experiments"), [*QUICK, *SLOW])
def test_a_smoke_variant_has_the_methods_of_its_suite(name: str, profile: str | None, experiments: int) -> None:
    def methods(suite: Suite) -> list[tuple[str, Any, Any]]:
        specs = [trial.method for trial in resolve(suite) if trial.experiment == suite.experiments[0].name]
        kinds = [(spec.kind, getattr(spec, "score", None), getattr(spec, "scope", None)) for spec in specs]
        return list(dict.fromkeys(kinds))

    whole = load_suite(BENCHMARKS / f"{name}.yaml", profile=profile)
    assert methods(smoke(name, profile, experiments)) == methods(whole)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("name", "profile", "experiments"), [*QUICK, *(pytest.param(*suite, marks=pytest.mark.slow) for suite in SLOW)]
)
def test_every_method_runs_and_is_compared(
    name: str,
    profile: str | None,
    experiments: int,
    here: None,
    empty_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name == "detection":
        pytest.importorskip("ultralytics", reason="the suite needs dms-bench[detection]")
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path)
    suite = smoke(name, profile, experiments)
    assert run_suite(suite) == 0, capsys.readouterr().out
    board = CliRunner().invoke(app, ["leaderboard", "--suite", suite.name, "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(board.stdout)))
    assert sorted((row["experiment"], row["method"]) for row in rows) == sorted(
        (trial.experiment, trial.method.label()) for trial in resolve(suite)
    )
    for row in rows:
        assert (row["n"], row["failed"], row["unfinished"]) == ("1", "0", "0"), row
        # All cut networks meet the budget; one that a person designed need not.
        assert row["budget_missed"] == "0" or row["kind"] == "designed", row
        # What is paired with what: everything with random and with DMS, but these and what is held to no budget.
        assert (row["delta_random"] == "") == (row["kind"] in ("random", "supernet", "longer")), row
        assert (row["delta_dms"] == "") == (row["kind"] in ("dms", "supernet", "longer")), row
