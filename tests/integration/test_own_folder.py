"""A run in a folder that has a `tasks.py` of the user's own, and the way of its network out of the store."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOY = Path(__file__).parent / "plugin"


def _python(folder, *arguments):
    path = os.pathsep.join(filter(None, [str(TOY), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_folder_with_a_module_called_tasks(command):
    (command.folder / "tasks.py").write_text("raise RuntimeError('this module is the user\\'s')\n")
    command.write("own", {"method": "random"}, smoke={"retrain": {"epochs": 1}})
    code, output = command.run("own", "--smoke")
    assert code == 0, output
    (key, result), *others = command.results("own-smoke").items()
    assert not others
    assert [epoch for *_, epoch in command.entries()] == ["1"]

    # Its network leaves the store and is built again elsewhere.
    assert _python(command.folder, "-m", "dms_bench", "show", key, "--suite", "own-smoke")[0] == 0
    assert "no trial" in _python(command.folder, "-m", "dms_bench", "show", "nothing", "--suite", "own-smoke")[2]
    code, out, _ = _python(command.folder, "-m", "dms_bench", "export", key, "--output", "exported")
    assert code == 0
    written = {Path(line.removeprefix("wrote ")).name for line in out.splitlines()}
    assert written == {"architecture.json", "weights.safetensors", "toy.txt", "model.pt2", "README.md"}
    script = "import dms_bench; print(sum(tensor.numel() for tensor in dms_bench.load('exported').parameters()))"
    assert _python(command.folder, "-c", script)[1] == f"{result.params}\n"
