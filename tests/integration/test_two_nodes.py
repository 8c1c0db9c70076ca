"""Two Ray nodes, a trial over both, one node lost in the middle; results in an MLflow server over PostgreSQL."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from dms_bench.tracking.reading import read_trials
from dms_bench.trial.meter import attempts
from tests.integration.conftest import PLUGIN

pytestmark = pytest.mark.slow


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _postgres_binaries():
    found = [shutil.which("initdb"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    return Path(next(path for path in found if path)).resolve().parent if any(found) else None


@pytest.fixture
def database():
    """URI of a database in a PostgreSQL of the system's packages."""
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.skip("needs PostgreSQL on this machine: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    owner = None
    if os.getuid() == 0:  # which PostgreSQL refuses to run as
        with contextlib.suppress(KeyError):
            owner = pwd.getpwnam("postgres").pw_uid
        if owner is None:
            pytest.skip("PostgreSQL refuses to run as root: run as another user, or add a user postgres")
        os.chown(folder, owner, -1)
    data, port = folder / "data", _free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "user": owner, "cwd": folder}
    subprocess.run([binaries / "initdb", "-D", data, "-U", "mlflow", "--auth=trust", "--no-sync"], check=True, **quiet)
    process = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"], **quiet
    )
    ready = [binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
    _wait(lambda: subprocess.run(ready, **quiet).returncode == 0, "PostgreSQL")
    yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/postgres"
    process.send_signal(signal.SIGINT)
    process.wait(60)
    shutil.rmtree(folder)


@pytest.fixture
def server(database, tmp_path):
    """Address of an MLflow server over it, with its artifacts in a folder."""
    port = _free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", database, "--artifacts-destination", str(tmp_path / "artifacts"),
        ],
        cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"

    def answers():
        assert process.poll() is None, "the MLflow server did not start"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return answer.status == 200
        return False

    _wait(answers, "MLflow")
    yield address
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(60)


@pytest.fixture
def cluster(command, monkeypatch):
    """Two nodes of one core each."""
    from ray.cluster_utils import Cluster

    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    for name, value in {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(PLUGIN),
        "OMP_NUM_THREADS": "1",
        "TOY_JOURNAL": str(command.journal),
    }.items():
        monkeypatch.setenv(name, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def _wait(condition, what):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.1)


def _suite(command, name, server):
    recipe = {"epochs": 6, "pause": 0.2}
    pair = {
        "name": "pair", "search": recipe, "retrain": recipe, "method": "dms", "task": {"kind": "toy", "width": 32},
        "resources": {"workers": 2, "placement": "strict_spread"},
    }  # fmt: skip
    command.write(name, {"sweep": {"grid": {"seed": [0, 1]}}}, tracking=server)
    path = command.folder / f"{name}.yaml"
    suite = yaml.safe_load(path.read_text())
    suite["experiments"].append(suite["experiments"][0] | pair | {"sweep": {}})
    path.write_text(yaml.safe_dump(suite))


def test_a_trial_over_two_nodes_goes_on_when_one_is_lost_and_back(command, cluster, server):
    node = cluster.add_node(num_cpus=1)
    _suite(command, "calm", server)
    code, output = command.run("calm", RAY_ADDRESS=cluster.address)
    assert code == 0, output
    command.journal.unlink()

    _suite(command, "lost", server)
    driver = command.start("lost", RAY_ADDRESS=cluster.address)

    def halfway():
        assert driver.poll() is None, driver.communicate()[0]
        return any(
            stage == "retrain" and epoch == "3" for key, stage, epoch in command.entries() if _is_pair(command, key)
        )

    command.wait_for(halfway)
    others = {key: result for key, result in command.results("lost").items() if not _is_pair(command, key)}
    assert len(others) == 2
    cluster.remove_node(node, allow_graceful=False)
    time.sleep(5)
    assert driver.poll() is None
    cluster.add_node(num_cpus=1)
    output, _ = driver.communicate(timeout=240)
    assert driver.returncode == 0, output

    after = command.results("lost")
    assert {key: after[key] for key in others} == others
    assert {key: result.value for key, result in after.items()} == {
        key: result.value for key, result in command.results("calm").items()
    }
    (pair,) = after.keys() - others.keys()
    assert {cost.devices for cost in after[pair].costs} == {2.0}
    assert max(cost.attempts for cost in after[pair].costs) >= 2
    epochs = [entry for entry in command.entries() if entry[0] == pair]
    assert len(epochs) - 2 * len(set(epochs)) <= 2  # an epoch of each worker, at most, was trained again
    runs = read_trials(server, ["lost"])
    assert sorted(run.hash for run in runs) == sorted(after)
    assert {run.status for run in runs} == {"finished"}


def _is_pair(command, key):
    return any(attempt.devices == 2 for attempt in attempts(command.trials("lost")[key]))
