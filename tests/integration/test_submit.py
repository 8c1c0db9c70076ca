"""A suite as a Ray job on a head that the test starts on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dms_bench.runtime.storage import SuiteFolder

pytestmark = pytest.mark.slow


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def head(tmp_path, command):
    """Address of a Ray head's dashboard."""
    port, dashboard, agent = (_free_port() for _ in range(3))
    scratch = tempfile.mkdtemp(prefix="ray")  # pytest's own folders are too long for Ray's sockets
    binaries = Path(sys.executable).parent
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | {
        "RAY_AUTH_MODE": "disabled",
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parent / "plugin"),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [
            binaries / "ray", "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1",
            f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
            f"--temp-dir={scratch}",
        ],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    def answers() -> bool:
        assert process.poll() is None, "the head did not start"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", dashboard)) == 0

    command.wait_for(answers)
    yield f"http://127.0.0.1:{dashboard}"
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    shutil.rmtree(scratch, ignore_errors=True)


def test_a_job_runs_the_suite_and_returns_its_exit_code(command, head, tmp_path):
    stored = {"storage": str(tmp_path / "runs"), "tracking": f"sqlite:///{tmp_path}/mlflow.db"}
    command.write("job", {}, **stored)
    command.write("bad", {"retrain": {"epochs": 2, "fails_in": 1}}, **stored)
    command.write("greedy", {"budget": {"kind": "macs", "target": "2%"}}, **stored)
    code, output = _submit(command, "job", head)
    assert code == 0, output
    assert "job: 1 finished" in output
    assert len(command.results("job")) == 1

    code, output = _submit(command, "bad", head)
    assert code == 1
    assert "retrain, epoch 1: the loss is inf" in output

    code, output = _submit(command, "greedy", head)
    assert code == 2
    assert "is out of reach" in output
    assert not list(SuiteFolder.of(stored["storage"], "greedy").path.glob("trials/*"))


def _submit(command, name, address):
    script = (
        f"import sys; from dms_bench.runtime.submit import submit; sys.exit(submit({name + '.yaml'!r}, {address!r}))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script],
        cwd=command.folder,
        env=os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(Path(__file__).parent / "plugin")},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    return finished.returncode, finished.stdout + finished.stderr
