"""The SLURM script with two Ray nodes on this machine; only `srun` and `scontrol` are stand-ins."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.integration.conftest import PLUGIN

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BINARIES = Path(sys.executable).parent

STAND_INS = {
    "scontrol": """
print("one\\ntwo")
""",
    "srun": """
import os, sys
words = sys.argv[1:]
own = next(at for at, word in enumerate(words) if not word.startswith("--"))
os.execvp(words[own], words[own:])
""",
    # Two nodes of Ray on one machine need folders and agents of their own.
    "ray": """
import os, sys
words = sys.argv[1:]
if words[0] == "start":
    head = "--head" in words
    words += ["--temp-dir=FOLDER/" + ("head" if head else "node")]
    words += [f"--dashboard-agent-listen-port={53000 + os.getpid() % 2000}"]
    with open("FOLDER/started", "a") as file:
        file.write(f"{os.getpid()}\\n")
os.execv("BINARIES/ray", ["ray", *words])
""",
}


@pytest.fixture
def cluster():
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # pytest's own folders are too long for Ray's sockets
    (folder / "bin").mkdir()
    for name, text in STAND_INS.items():
        path = folder / "bin" / name
        text = text.replace("FOLDER", str(folder)).replace("BINARIES", str(BINARIES))
        path.write_text(f"#!{sys.executable}{text}")
        path.chmod(0o755)
    (folder / "bin" / "activate").write_text(f"PATH={folder}/bin:{BINARIES}:$PATH\n")
    yield folder
    for process in (folder / "started").read_text().split():
        os.kill(int(process), signal.SIGTERM)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_trial_of_two_workers_spans_the_nodes_of_a_slurm_job(command, cluster):
    experiment = {"resources": {"workers": 2}, "task": {"kind": "toy", "width": 32}, "method": "dms"}
    command.write("pair", experiment)
    before = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    slurm = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": str(os.getpid()), "SLURM_CPUS_PER_TASK": "1"}
    path = os.pathsep.join([str(PLUGIN), str(ROOT)])
    finished = subprocess.run(
        ["bash", ROOT / "cluster" / "slurm" / "dms-bench.sbatch", "pair.yaml"],
        cwd=command.folder,
        env=before | slurm | {"DMS_BENCH_VENV": str(cluster), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=(cluster / "log").open("w"), stderr=subprocess.STDOUT, timeout=120,
    )  # fmt: skip
    log = (cluster / "log").read_text()
    assert finished.returncode == 0, log
    assert "pair: 1 finished" in log
    (result,) = command.results("pair").values()
    assert {cost.devices for cost in result.costs} == {2.0}
    assert len((cluster / "started").read_text().split()) == 2
    assert json.loads(next(iter(command.trials("pair").values())).result.read_text())
