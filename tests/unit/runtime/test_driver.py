"""The driver, with Ray left out."""

import errno
import io
import logging
from contextlib import nullcontext

import pytest
from rich.console import Console

from dms_bench.errors import TrialFailure
from dms_bench.runtime import nodes, schedule, session
from dms_bench.runtime.console import Board
from dms_bench.runtime.driver import Driver
from dms_bench.trial import storage
from dms_bench.trial.storage import SuiteFolder, WorkFolder


@pytest.fixture
def driver(make_suite, make_trial, store, tmp_path):
    console = Console(file=io.StringIO())
    driver = Driver(make_suite("suite"), SuiteFolder(tmp_path / "suite"), store, [make_trial()], [], console)
    driver._board = Board(console, 1)
    return driver


@pytest.mark.parametrize("died", [True, False])
def test_a_failure_that_cannot_be_written_down_is_said_in_a_line(driver, make_work, monkeypatch, died):
    def fail(self, message, details=""):
        raise OSError(errno.ENOSPC, "No space left on device", "failure.json")

    monkeypatch.setattr(WorkFolder, "fail", fail)
    driver.ended(make_work(driver), died)
    assert driver._board.counts["failed"] == 1
    (line,) = driver._console.file.getvalue().splitlines()
    assert "suite: No space left on device" in line


def test_a_process_that_died_too_often_is_a_failure(driver, make_work):
    work = make_work(driver)
    driver.ended(work, True)
    assert work.folder.failure().startswith("its process died 3 times: ended without a word, as by SIGKILL")


def test_an_old_result_without_a_number_is_to_be_done_again(driver, make_work, make_trial):
    work = make_work(driver)
    work.folder.path.mkdir(parents=True)
    work.folder.result.write_text('{"metric": "top1", "value": null}')
    assert driver.to_check() == [make_trial()]
    assert driver._unpublished() == []
    work.folder.fail("evaluation: top1 is nan on the test split")
    driver.ended(work, False)
    assert "top1 is nan" in driver._console.file.getvalue()


@pytest.mark.parametrize("full", [True, False])
def test_a_full_disk_ends_the_run_with_one_line_whatever_tune_makes_of_it(driver, monkeypatch, full):
    def run_all(*_):
        raise EOFError("Ran out of input")

    def write(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(session, "ray_session", nullcontext)
    monkeypatch.setattr(nodes, "check_nodes", lambda folder, uri: None)
    monkeypatch.setattr(schedule, "run_all", run_all)
    if full:
        monkeypatch.setattr(storage, "write_atomic", write)
    with pytest.raises(TrialFailure if full else EOFError) as error:
        driver.run()
    if full:
        assert str(error.value).endswith(
            "/suite: No space left on device; make room, and the same command goes on from here"
        )


def test_tune_says_in_one_line_what_failed(caplog):
    try:
        raise RuntimeError("ray::train()\n  File 1\nOSError: full")
    except RuntimeError:
        logging.getLogger("tune").addFilter(session._one_line)
        logging.getLogger("tune").exception("Trial %s failed", "x")
    assert caplog.text.endswith("Trial x failed (OSError: full)\n")


@pytest.fixture
def make_work(make_trial):
    def make_work(driver):
        from dms_bench.trial.work import Work

        return Work(
            kind="trial", trial=make_trial(), suite_folder=driver._folder.path, uri=driver._uri,
            experiment_id="1", parent_id="2", environment={},
        )  # fmt: skip

    return make_work
