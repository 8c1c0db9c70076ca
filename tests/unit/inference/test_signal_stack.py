"""OpenVINO leaves the process able to take signals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Compiles a network, as `model.xml`, and takes the signal of a child that exits where a handler of Python's is set.
CHILD_EXITS = """
import faulthandler, signal, subprocess, sys
from pathlib import Path
import openvino
import openvino.opset13 as operations
import torch
from dms_bench.inference.runtimes import openvino_runtime
from dms_bench.inference.signal_stack import signal_stack

faulthandler.enable()
taken = []
signal.signal(signal.SIGCHLD, lambda *_: taken.append(1))
inputs = operations.parameter([-1, 4], name="inputs")
openvino.save_model(openvino.Model([operations.relu(inputs)], [inputs]), "model.xml")
before = signal_stack().address
predict = openvino_runtime(Path("model.xml"))
assert signal_stack().address == before != None, "another stack"
assert predict(torch.tensor([[-1.0, 0, 1, 2]])).tolist() == [[0, 0, 1, 2]]
del predict
subprocess.run(["true"], check=True)
print("alive", len(taken))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the stack is kept on Linux")
def test_a_child_that_exits_after_openvino_does_not_end_the_process(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    done = subprocess.run(
        [sys.executable, "-c", CHILD_EXITS], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "alive 1\n", done.stderr[-2000:]
