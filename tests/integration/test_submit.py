"""A suite as a Ray job on a head that the test starts on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dms_bench.trial.storage import SuiteFolder

pytestmark = pytest.mark.slow


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Head:
    """A Ray head on loopback, which can be lost and come back under the same address."""

    def __init__(self, command):
        self._command = command
        self._ports = {name: _free_port() for name in ("port", "dashboard-port", "dashboard-agent-listen-port")}
        self.address = f"http://127.0.0.1:{self._ports['dashboard-port']}"

    def start(self):
        self._scratch = tempfile.mkdtemp(prefix="ray")  # pytest's own folders are too long for Ray's sockets
        binaries = Path(sys.executable).parent
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | {
            "RAY_AUTH_MODE": "disabled",
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parent / "plugin"),
            "OMP_NUM_THREADS": "1",
            "TOY_JOURNAL": str(self._command.journal),
        }
        self._process = subprocess.Popen(
            [
                binaries / "ray", "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1",
                f"--temp-dir={self._scratch}", *(f"--{name}={port}" for name, port in self._ports.items()),
            ],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._command.wait_for(self._answers)

    def _answers(self):
        assert self._process.poll() is None, "the head did not start"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._ports["dashboard-port"])) == 0

    def kill(self):
        """Lose the machine: all processes of Ray's own at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def stop(self):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        shutil.rmtree(self._scratch, ignore_errors=True)


@pytest.fixture
def head(command):
    head = Head(command)
    head.start()
    yield head
    head.stop()


def test_a_job_runs_the_suite_and_returns_its_exit_code(command, head, tmp_path):
    stored = {"storage": str(tmp_path / "runs"), "tracking": f"sqlite:///{tmp_path}/mlflow.db"}
    command.write("job", {}, **stored)
    command.write("bad", {"retrain": {"epochs": 2, "fails_in": 1}}, **stored)
    command.write("greedy", {"budget": {"kind": "macs", "target": "2%"}}, **stored)
    code, output = _submit(command, "job", head.address)
    assert code == 0, output
    assert "job: 1 finished" in output
    assert len(command.results("job")) == 1

    code, output = _submit(command, "bad", head.address)
    assert code == 1
    assert "retrain, epoch 1: the loss is inf" in output

    code, output = _submit(command, "greedy", head.address)
    assert code == 2
    assert "is out of reach" in output
    assert not list(SuiteFolder.of(stored["storage"], "greedy").path.glob("trials/*"))


def test_a_job_that_dies_with_its_head_goes_on_when_the_head_is_back(command, head, tmp_path):
    stored = {"storage": str(tmp_path / "runs"), "tracking": f"sqlite:///{tmp_path}/mlflow.db"}
    epochs = {"epochs": 30, "pause": 0.05}
    command.write("long", {"retrain": epochs, "sweep": {"grid": {"seed": [0, 1, 2, 3]}}}, **stored)
    submitter = _submitter(command, "long", head.address)
    command.wait_for(lambda: len(command.results("long")) >= 1)
    head.kill()
    time.sleep(2)  # what a raylet has started ends within a second of it
    before = command.results("long")
    assert 0 < len(before) < 4
    head.start()
    output, _ = submitter.communicate(timeout=240)
    assert submitter.returncode == 0, output
    assert output.count("submitted ") == 2
    assert f"long: {4 - len(before)} trials to run, {len(before)} finished already" in output
    after = command.results("long")
    assert len(after) == 4
    assert all(after[key] == result for key, result in before.items())
    again = len(command.entries()) - len(set(command.entries()))
    assert again <= 4  # an epoch of each trial that was under way, at most


def _submitter(command, name, address):
    script = (
        f"import sys; from dms_bench.runtime.submit import submit; sys.exit(submit({name + '.yaml'!r}, {address!r}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=command.folder,
        env=os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(Path(__file__).parent / "plugin")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def _submit(command, name, address):
    submitter = _submitter(command, name, address)
    output, _ = submitter.communicate(timeout=240)
    return submitter.returncode, output
