"""What a dead process has left is found again, whatever it died of."""

import subprocess
import sys

import pytest

from dms_bench.trial.last_words import OUT_OF_MEMORY, cause, file_of, kept
from dms_bench.trial.storage import WorkFolder

#: Writes through Python and past it, warns, and dies in the way of its argument.
PROGRAM = """
import ctypes, faulthandler, os, sys
from pathlib import Path
from dms_bench.trial.last_words import kept
from dms_bench.trial.storage import WorkFolder
faulthandler.enable()
with kept(WorkFolder(Path(sys.argv[2]))):
    print("a warning", file=sys.stderr)
    if sys.argv[1] == "abort":
        libc = ctypes.CDLL(None)
        libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        block = libc.malloc(64)
        libc.free(block)
        libc.free(block)
    if sys.argv[1] == "segfault":
        ctypes.string_at(0)
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), 9)
print("back", file=sys.stderr)
"""


def _died(how: str, folder: WorkFolder) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM, how, str(folder.path)], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("abort", "SIGABRT, 'free(): double free detected in tcache 2'; all that it wrote is in "),
        ("segfault", "SIGSEGV, 'a warning'; all that it wrote is in "),
        (
            "kill",
            "ended without a word, as by SIGKILL (kill -9, or the system when memory is short); its last words, in ",
        ),
    ],
)
def test_a_death_is_read_from_what_the_process_wrote(folder, how, expected):
    assert _died(how, folder).returncode < 0
    reason, words = cause(folder)
    assert reason.startswith(expected)
    assert str(file_of(folder)) in reason
    assert "\n" not in reason
    assert "a warning" in words


def test_what_is_written_afterwards_goes_where_it_used_to(folder):
    done = _died("not at all", folder)
    assert (done.returncode, done.stderr) == (0, "back\n")
    assert file_of(folder).read_text() == "a warning\n"


def test_a_process_without_a_word_leaves_no_file_and_forgets_the_last_attempt_s(folder):
    folder.path.mkdir(parents=True)
    file_of(folder).write_text("Fatal Python error: Aborted\n")
    with kept(folder):
        pass
    assert not file_of(folder).exists()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", "ended without a word"),
        ("Worker exits with an exit code 4.", "it left with exit code 4"),
        ("Worker exits with an exit code 1. The process receives a SIGTERM.", "ended from outside (SIGTERM)"),
        (OUT_OF_MEMORY, OUT_OF_MEMORY),
    ],
)
def test_what_ray_knows_is_said_where_the_process_said_nothing(folder, said, expected):
    assert cause(folder, said)[0].startswith(expected)


def test_of_several_workers_the_one_with_the_fault_counts(folder):
    folder.path.mkdir(parents=True)
    file_of(folder, 0).write_text("connection closed by peer\n")
    file_of(folder, 1).write_text("corrupted size vs. prev_size\n*** SIGABRT received at time=1 on cpu 0 ***\n")
    reason, _ = cause(folder)
    assert reason == f"SIGABRT, 'corrupted size vs. prev_size'; all that it wrote is in {file_of(folder, 1)}"
