"""The measurement of suites of thousands of trials, with a few."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "speed" / "scale.py"


@pytest.mark.slow
def test_the_measurement_of_scale_counts_every_trial(tmp_path: Path) -> None:
    table = tmp_path / "scale.csv"
    subprocess.run(
        [sys.executable, str(SCRIPT), "--trials", "80", "--output", str(table)], check=True, cwd=tmp_path, timeout=300
    )

    (row,) = csv.DictReader(table.open())
    assert row["trials"] == "80"
    for name in (
        "plan [s]",
        "run [s]",
        "leaderboard [s]",
        "first tenth [ms/trial]",
        "driver, last tenth [processor ms/trial]",
    ):
        assert float(row[name]) > 0, name
