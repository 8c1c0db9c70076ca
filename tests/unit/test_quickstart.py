"""`make quickstart` shows the leaderboard also where trials failed, and ends as the run did."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = """#!/bin/sh
case "$*" in
  "run benchmarks/quick.yaml") echo ran; exit $RUN;;
  "leaderboard --suite quick") echo the leaderboard; exit $BOARD;;
  "leaderboard --suite quick --format csv") printf 'task,failed\\n"glyphs, 32px",%s\\nb,0\\n' $FAILED;;
  *) exit 9;;
esac
"""


@pytest.mark.parametrize(
    ("run", "board", "failed", "last", "code"),
    [
        (0, 0, 0, "quick: none of its trials failed", 0),
        (1, 0, 2, "quick: 2 of its trials failed", 1),
        (2, 2, 0, "the leaderboard", 2),
    ],
)
def test_quickstart(tmp_path: Path, run: int, board: int, failed: int, last: str, code: int) -> None:
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "dms-bench").write_text(COMMAND)
    (binaries / "dms-bench").chmod(0o755)
    (binaries / "python").symlink_to(sys.executable)
    (tmp_path / ".installed").touch()
    done = subprocess.run(
        ["make", "--no-print-directory", "quickstart", f"VENV={tmp_path}"],
        cwd=ROOT, env={**os.environ, "RUN": f"{run}", "BOARD": f"{board}", "FAILED": f"{failed}"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines()[0] == "ran"
    assert done.stdout.splitlines()[-1] == last, done.stderr
    assert f"Error {code}" in done.stderr if code else done.returncode == 0
