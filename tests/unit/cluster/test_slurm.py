"""The SLURM script, run for real with stand-ins for SLURM, Ray and dms-bench that write down how they were called."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.unit.cluster.parsing import CLUSTER, parse

pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # Ray Serve's own

SCRIPT = CLUSTER / "slurm" / "dms-bench.sbatch"

#: Writes its name and words to a journal, then does what the test wants of it.
STAND_IN = """#!{python}
import json, os, subprocess, sys, time
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
with open("{journal}", "a") as journal:
    journal.write(json.dumps([name, *words]) + "\\n")
if name == "scontrol" and words[0] == "show":
    print("one\\ntwo")
if name == "srun":
    own = next(place for place, word in enumerate(words) if not word.startswith("--"))
    sys.exit(subprocess.call(words[own:]))
if name == "dms-bench":
    print("RAY_ADDRESS", os.environ["RAY_ADDRESS"], os.environ["RAY_AUTH_MODE"], len(os.environ["RAY_AUTH_TOKEN"]))
    time.sleep({seconds})
    sys.exit({code})
"""


class Job:
    def __init__(self, folder):
        self.folder, self.journal = folder, folder / "journal"
        (folder / "bin").mkdir()

    def start(self, *words, seconds=0, code=0):
        text = STAND_IN.format(python=sys.executable, journal=self.journal, seconds=seconds, code=code)
        for name in ("srun", "scontrol", "ray", "dms-bench"):
            path = self.folder / "bin" / name
            path.write_text(text)
            path.chmod(0o755)
        (self.folder / "bin" / "activate").write_text(f"PATH={self.folder}/bin:$PATH\n")
        slurm = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "7123", "SLURM_CPUS_PER_TASK": "16"}
        return subprocess.Popen(
            ["bash", SCRIPT, *words],
            env=os.environ | slurm | {"SLURM_GPUS_ON_NODE": "4", "DMS_BENCH_VENV": str(self.folder)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def calls(self, name):
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [words for called, *words in map(json.loads, lines) if called == name]


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def test_a_suite_runs_on_a_head_and_the_other_nodes_and_gives_its_exit_code(job):
    process = job.start("suite.yaml", "--profile", "full", code=2)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    address = re.search(r"RAY_ADDRESS (\S+:27123) token 64", output)[1]
    assert job.calls("dms-bench") == [["run", "suite.yaml", "--profile", "full"]]
    assert parse("dms-bench", job.calls("dms-bench")[0])["profile"] == "full"

    head, node = sorted(
        (words for words in job.calls("ray") if words[0] == "start"), key=lambda words: words[1] != "--head"
    )
    for words in (head, node):
        options = parse("ray", words)
        assert options["block"]
        assert (options["num_cpus"], options["num_gpus"]) == (16, 4)
    assert parse("ray", head)["include_dashboard"] is False
    assert f"{parse('ray', head)['node_ip_address']}:{parse('ray', head)['port']}" == address
    assert parse("ray", node)["address"] == address
    places = [next(word for word in words if word.startswith("--nodelist")) for words in job.calls("srun")]
    assert sorted(places) == ["--nodelist=one", "--nodelist=one", "--nodelist=two"]


def test_before_its_time_is_over_the_driver_is_ended_and_the_job_queued_again(job):
    process = job.start("suite.yaml", seconds=600)
    deadline = time.monotonic() + 60
    while not job.calls("dms-bench"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert ["requeue", "7123"] in job.calls("scontrol")


def test_without_a_suite_nothing_is_started(job):
    process = job.start()
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "usage: sbatch" in output
    assert not job.journal.exists()


def test_its_directives_are_options_of_sbatch_that_agree_with_the_script():
    lines = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", SCRIPT.read_text(), re.MULTILINE)
    directives = dict(lines)
    assert len(lines) == SCRIPT.read_text().count("#SBATCH --")
    assert directives["ntasks-per-node"] == "1"
    assert directives["signal"].startswith("B:TERM@")
    assert {"requeue", "exclusive", "cpus-per-task", "gpus-per-node"} <= set(directives)


def test_commands_in_the_readme_parse():
    text = (CLUSTER / "slurm" / "README.md").read_text()
    runs = re.findall(r"dms-bench\.sbatch (.*)", text)
    assert len(runs) == 2
    for words in runs:
        parse("dms-bench", ["run", *words.split()])
