"""Whole suites: undisturbed, killed, interrupted, failing."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest

SLOW = {"epochs": 4, "pause": 0.1}
FOUR = {"grid": {"method": ["dms", "uniform"], "seed": [0, 1]}}


@pytest.mark.slow
def test_a_killed_suite_goes_on_and_ends_like_an_undisturbed_one(command):
    """`kill -9` of a worker and of the driver, then the same command: the same leaderboard."""
    experiment = {"search": SLOW, "retrain": SLOW, "sweep": FOUR, "task": {"kind": "toy", "width": 32}}
    command.write("calm", experiment)
    code, output = command.run("calm")
    assert code == 0, output
    assert output.count("done") == 4
    assert len(command.results("calm")) == 4
    command.journal.unlink()

    command.write("killed", experiment)
    driver = command.start("killed", TOY_KILL="retrain 2 0")
    # A worker has killed itself in the first retraining; its trial goes on from its second epoch.
    command.wait_for(lambda: any(command.results("killed")))
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = command.results("killed")
    assert 0 < len(before) < 4

    code, output = command.run("killed")
    assert code == 0, output
    assert f"{4 - len(before)} trials to run, {len(before)} finished already" in output
    after = command.results("killed")
    assert {key: result.value for key, result in after.items()} == {
        key: result.value for key, result in command.results("calm").items()
    }
    assert command.board("killed") == command.board("calm")
    # What had been finished was not run again, and of the rest an epoch at most was trained twice.
    assert all(after[key] == result for key, result in before.items())
    epochs = command.entries()
    assert len(epochs) - len(set(epochs)) <= 3
    assert max(cost.attempts for result in after.values() for cost in result.costs) > 1

    code, output = command.run("killed")
    assert code == 0
    assert "all 4 trials are finished already" in output
    assert command.entries() == epochs


def test_ctrl_c_ends_a_run_within_seconds_and_a_second_driver_is_refused(command):
    command.write("long", {"retrain": {"epochs": 5000, "pause": 0.1}})
    driver = command.start("long")
    command.wait_for(lambda: len(command.entries()) >= 6)

    code, output = command.run("long")
    assert code == 2
    assert f"error: suite 'long' is already running (process {driver.pid}" in output

    workers = {int(line.split()[0]) for line in command.journal.read_text().splitlines()}
    started = time.monotonic()
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=120)
    assert time.monotonic() - started < 60  # of half an hour; some 5 where nothing else runs
    assert driver.returncode == 1, output
    assert "the same command goes on" in output
    assert "Traceback" not in output
    command.wait_for(lambda: not any(_alive(worker) for worker in workers))


def test_a_failed_trial_does_not_stop_the_others_and_is_tried_again(command):
    command.write("mixed", {"sweep": {"grid": {"retrain.fails_in": [0, 2]}}})
    code, output = command.run("mixed")
    assert code == 1
    assert output.count("done ") == 1
    assert output.count("the loss is inf") == 1
    assert "Traceback" not in output
    assert len(command.results("mixed")) == 1
    assert {folder.failure() for folder in command.trials("mixed").values()} == {
        None,
        "retrain, epoch 2: the loss is inf",
    }
    rows = list(csv.DictReader(command.board("mixed").splitlines()))
    assert sorted(row["failed"] for row in rows)[-1] == "1"
    assert sum(int(row["n"]) for row in rows) == 1

    code, output = command.run("mixed")
    assert code == 1
    assert "1 trial to run, 1 finished already" in output


def test_a_budget_out_of_reach_is_refused_before_anything_is_trained(command):
    command.write("greedy", {"budget": {"kind": "macs", "target": "2%"}})
    code, output = command.run("greedy")
    assert code == 2
    assert output.startswith("error: experiment 'mlp': budget macs 2% is out of reach for mlp: its architectures have")
    assert len(output.splitlines()) == 1
    assert not command.journal.exists()


def test_a_trial_that_needs_more_than_there_is_is_refused(command):
    command.write("hungry", {"resources": {"cpus": 4096}})
    code, output = command.run("hungry")
    assert code == 2
    assert "a trial needs 4096 CPUs" in output


def test_a_worker_that_always_dies_is_a_failure_that_says_why(command):
    """An aborted one has the C library's last line and the signal; nobody hears from a killed one."""
    grid = {"retrain.dies_by": ["abort", "kill"]}
    command.write("dying", {"retrain": {"epochs": 2, "dies_in": 1}, "sweep": {"grid": grid}})
    code, output = command.run("dying")
    assert code == 1
    assert len(output.splitlines()) == 5, output  # nothing of Ray's own on the screen
    aborted = "its process died 3 times: SIGABRT, 'double free or corruption (out)'; all that it wrote is in "
    killed = (
        "its process died 3 times: ended without a word, as by SIGKILL (kill -9, or the system when memory is short)"
    )
    assert output.count(aborted) == output.count(killed) == 1
    (folder,) = [folder for folder in command.trials("dying").values() if "SIGABRT" in folder.failure()]
    assert "in _end" in (folder.path / "worker-0.err").read_text()  # where it was
    show = [sys.executable, "-m", "dms_bench", "show", folder.path.name]
    shown = subprocess.run(show, cwd=command.folder, capture_output=True, text=True, check=True).stdout
    assert aborted in " ".join(shown.split())


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
