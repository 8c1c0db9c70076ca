"""A raylet that dies: what it started ends, Tune's wait ends, the driver starts another Ray, but not for ever."""

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import psutil
import pytest
from rich.console import Console

from dms_bench.errors import TrialFailure
from dms_bench.runtime import hooks, nodes, schedule, session
from dms_bench.runtime.driver import Driver
from dms_bench.runtime.nodes import RayLostError
from dms_bench.trial.storage import SuiteFolder

CHILD = "import time; from dms_bench.runtime.orphan import end_with_parent; {}; print('up', flush=True); time.sleep(60)"
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize(("call", "ends"), [("end_with_parent(); end_with_parent()", True), ("pass", False)])
def test_a_process_ends_with_the_one_that_started_it(call, ends):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD.format(call)], stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(parent.stdout.readline()))
    try:
        assert parent.stdout.readline() == "up\n"
        time.sleep(1.5)
        assert child.is_running()
        parent.kill()
        parent.wait()
        gone, _ = psutil.wait_procs([child], timeout=10 if ends else 3)
        assert bool(gone) == ends
    finally:
        parent.stdout.close()
        if child.is_running():
            os.kill(child.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("alive", "lost"), [([], True), ([False], True), ([False, False], True), ([True], False), ([False, True], False)]
)
def test_tune_waits_as_long_as_there_is_a_node(alive, lost, monkeypatch):
    looks = []
    monkeypatch.setattr(nodes.ray, "nodes", lambda: looks.append(1) or [{"Alive": one} for one in alive])
    watch = hooks.Watch(None)
    with pytest.raises(RayLostError) if lost else nullcontext():
        watch.on_step_begin(0, [])
    if not lost:
        watch.on_step_begin(1, [])
    assert len(looks) == 1


@pytest.mark.parametrize(("deaths", "code"), [(2, 0), (3, 1)])
def test_the_driver_starts_another_ray_but_not_for_ever(
    deaths, code, make_suite, make_trial, store, tmp_path, monkeypatch
):
    trials = [make_trial(seed=seed) for seed in range(3)]
    sessions = []

    def run_all(works, scratch, observer, most):
        if not works:
            return
        sessions.append([work.trial.seed for work in works])
        observer.started(works[0])
        works[0].folder.stop("enough", 1.0)
        observer.ended(works[0], False)
        if len(sessions) <= deaths:
            raise RayLostError
        for work in works[1:]:
            work.folder.stop("enough", 1.0)
            observer.ended(work, False)

    monkeypatch.setattr(session, "ray_session", nullcontext)
    monkeypatch.setattr(nodes, "check_nodes", lambda folder, uri: None)
    monkeypatch.setattr(schedule, "run_all", run_all)
    trials += [make_trial(seed=seed) for seed in (3, 4)]
    console = Console(file=io.StringIO(), width=200)
    driver = Driver(make_suite("suite"), SuiteFolder(tmp_path / "suite"), store, trials, [], console)
    if code:
        with pytest.raises(TrialFailure, match="keep dying"):
            driver.run()
    else:
        assert driver.run() == 0
    assert sessions == [[0, 1, 2, 3, 4], [1, 2, 3, 4], [2, 3, 4]]
    assert console.file.getvalue().count("going on with new ones") == 2
