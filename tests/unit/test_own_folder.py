"""Commands work in a folder whose modules have names that dms_bench might use, too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: `python -m` puts the working folder in front of everything else.
NAMES = ("tasks", "methods", "config", "testing")

SUITE = """
name: own
experiments:
  - name: digits
    task: {kind: classification, data: {name: digits}, image_size: 16, channels: 1}
    supernet: {model: resnet18, args: {channels: [8, 8, 8, 8]}}
    budget: {kind: macs, target: 30%}
    method: random
    retrain: {epochs: 5, lr: 0.1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this module is the user\\'s')\n")
    (tmp_path / "own.yaml").write_text(SUITE)
    return tmp_path


@pytest.mark.parametrize(("command", "said"), [("validate", "valid, 1 trial "), ("plan", "1 trial, about")])
def test_modules_of_the_user_are_left_alone(folder: Path, command: str, said: str) -> None:
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT), str(ROOT / "tasks")]))
    done = subprocess.run(
        [sys.executable, "-m", "dms_bench", command, "own.yaml"],
        cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
