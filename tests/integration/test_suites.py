"""The suites that compare methods, one per task, end to end: their smoke variants, and the boards that those fill."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dms_bench.config import load_suite, resolve

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def first_experiments(path, number, folder):
    """Return a suite's file, or one with some of its experiments."""
    suite = yaml.safe_load(path.read_text())
    if len(suite["experiments"]) == number:
        return path
    file = folder / path.name
    file.write_text(yaml.safe_dump({**suite, "experiments": suite["experiments"][:number]}))
    return file


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("name", "profile", "experiments"),
    [
        ("baselines", None, 1),
        pytest.param("baselines", None, 2, marks=pytest.mark.slow),
        ("detection", None, 1),
        pytest.param("detection", "rivals", 1, marks=pytest.mark.slow),
        pytest.param("detection", "pretrained", 1, marks=pytest.mark.slow),  # the same methods, from real weights
        ("language", None, 1),
        pytest.param("language", "frozen", 1, marks=pytest.mark.slow),  # the same methods, without finetuning
    ],
)
def test_every_method_runs_and_is_compared(name, profile, experiments, tmp_path):
    if name == "detection":
        pytest.importorskip("ultralytics", reason="the suite needs dms-bench[detection]")
    path = first_experiments(BENCHMARKS / f"{name}.yaml", experiments, tmp_path)

    def dms_bench(*arguments):
        command = [sys.executable, "-m", "dms_bench", *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1400)

    done = dms_bench("run", str(path), "--smoke", *(["--profile", profile] if profile else []))
    assert done.returncode == 0, done.stdout + done.stderr
    board = dms_bench("leaderboard", "--suite", "-".join(filter(None, (name, profile, "smoke"))), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(board.stdout)))
    trials = resolve(load_suite(path, profile=profile, smoke=True))
    assert sorted((row["experiment"], row["method"]) for row in rows) == sorted(
        (trial.experiment, trial.method.label()) for trial in trials
    )
    for row in rows:
        assert (row["n"], row["failed"], row["unfinished"]) == ("1", "0", "0"), row
        # All cut networks meet the budget; one that a person designed need not.
        assert row["budget_missed"] == "0" or row["kind"] == "designed", row
        # What is paired with what: everything with random and with DMS, but these and the supernet.
        assert (row["delta_random"] == "") == (row["kind"] in ("random", "supernet")), row
        assert (row["delta_dms"] == "") == (row["kind"] in ("dms", "supernet")), row
