"""The suites that compare methods, one per task, end to end: their smoke variants, and the boards that those fill."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dms_bench.config import load_suite, resolve

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("baselines", None),
        ("detection", None),
        pytest.param("detection", "pretrained", marks=pytest.mark.slow),  # the same methods, from real weights
        ("language", None),
        pytest.param("language", "frozen", marks=pytest.mark.slow),  # the same methods, without finetuning
    ],
)
def test_every_method_runs_and_is_compared(name, profile, tmp_path):
    if name == "detection":
        pytest.importorskip("ultralytics", reason="the suite needs dms-bench[detection]")
    path = BENCHMARKS / f"{name}.yaml"

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
