import multiprocessing
import threading
import time

import pytest

from dms_bench.errors import TrialFailure, UserError
from dms_bench.trial.storage import StageFolder, SuiteFolder, WorkFolder, locked, write_atomic


def test_writing_replaces_the_whole_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "new" / "file"
    write_atomic(path, "long content")
    write_atomic(path, "short")
    assert path.read_text() == "short"
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_stage_is_finished_once_its_marker_is_there(tmp_path):
    stage = StageFolder(tmp_path / "search")
    stage.output("weights").write_bytes(b"weights")
    stage.output("checkpoint-00001-0.pt").touch()
    assert not stage.finished()
    assert stage.history() == []
    stage.finish(("weights",), [{"epoch": 1, "loss": 0.5}])
    assert stage.finished()
    assert stage.history() == [{"epoch": 1, "loss": 0.5}]
    assert not list(stage.path.glob("checkpoint*"))


def test_clearing_forgets_the_named_trials_and_what_is_made_again(tmp_path):
    folder = SuiteFolder(tmp_path)
    for hash_ in ("one", "two"):
        write_atomic(folder.trial(hash_).result, "{}")
    write_atomic(folder.supernet("three").path / "weights", "")
    write_atomic(folder.latency / "four.json", "{}")
    folder.clear({"one", "unknown"})
    assert not folder.trial("one").path.exists()
    assert folder.trial("two").result.exists()
    assert not (tmp_path / "supernets").exists()
    assert not folder.latency.exists()


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"weighty")])
def test_a_finished_stage_with_a_damaged_output_is_a_failure_that_names_it(tmp_path, harm):
    stage = StageFolder(tmp_path / "search")
    stage.output("weights").write_bytes(b"weights")
    stage.finish(("weights",), [])
    harm(stage.output("weights"))
    with pytest.raises(TrialFailure, match=r"search/weights is missing or damaged"):
        stage.finished()


def test_a_damaged_marker_is_a_failure_that_names_it(tmp_path):
    stage = StageFolder(tmp_path / "search")
    stage.finish((), [])
    stage.output("done.json").write_text('{"outputs"')
    with pytest.raises(TrialFailure, match=r"done\.json is damaged"):
        stage.finished()


def _hold(path, held, seconds):
    with locked(path):
        held.set()
        time.sleep(seconds)


def test_a_lock_keeps_others_out_until_its_process_is_killed(tmp_path):
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "lock", held, 60))
    process.start()
    assert held.wait(30)
    with locked(tmp_path / "lock") as mine:
        assert not mine
    assert (tmp_path / "lock").read_text() == str(process.pid)
    threading.Timer(0.3, process.kill).start()
    with locked(tmp_path / "lock", seconds=20) as mine:
        assert mine
    process.join()


def test_a_second_driver_is_refused_and_told_who_runs(tmp_path):
    folder = SuiteFolder.of(str(tmp_path), "quick")
    message = r"suite 'quick' is already running \(process \d+"
    with folder.claimed(), pytest.raises(UserError, match=message), folder.claimed():
        pytest.fail("claimed twice")
    with folder.claimed():
        pass


def test_a_storage_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    folder = SuiteFolder.of(str(tmp_path / "file"), "quick")
    with pytest.raises(UserError, match=r"storage .*file/quick"), folder.claimed():
        pytest.fail("claimed a file")


def test_failures_and_stops_are_remembered_until_the_next_attempt(tmp_path):
    folder = WorkFolder(tmp_path)
    assert folder.failure() is None
    assert folder.stopped() is None
    folder.fail("NaN", "where")
    folder.stop("by the scheduler", 0.25)
    assert folder.failure() == "NaN"
    assert folder.stopped() == ("by the scheduler", 0.25)
    folder.forget_failure()
    assert folder.failure() is None
