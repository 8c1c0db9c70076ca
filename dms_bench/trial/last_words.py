"""Why a process died: what it wrote to its standard error, kept beside its trial, and the signal that this tells of.

No process of ours is the parent of Ray's workers, so nobody reads their exit status. What there is: before a worker
dies of a fault, the C library says what is wrong, Ray names the signal (`*** SIGABRT received`) and Python writes where
it was (`Fatal Python error`), all to the standard error; of an exit code or SIGTERM Ray tells the driver. A process
that is killed (SIGKILL), or leaves by `os._exit`, says nothing at all.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dms_bench.trial.storage import WorkFolder

_STDERR = 2
#: Bytes read of the end of a file, and lines of it that a failure's record holds.
_TAIL_BYTES, _LINES = 2**18, 60
_LONGEST = 300
#: What announces that a process dies of a signal: Ray's line, Python's own.
_RAY = re.compile(r"^\*\*\* (SIG[A-Z]+) received")
_PYTHON = re.compile(r"^Fatal Python error: (.+)")
_PYTHON_NAMES = {
    "Aborted": "SIGABRT",
    "Segmentation fault": "SIGSEGV",
    "Bus error": "SIGBUS",
    "Floating point exception": "SIGFPE",
    "Floating-point exception": "SIGFPE",
    "Illegal instruction": "SIGILL",
}
#: What the driver says for Ray, which ends a trial and its own experiment when a node runs out of memory.
OUT_OF_MEMORY = "ended by Ray, as its node ran out of memory"
#: What Ray knows of the end of a worker that had time to say good-bye.
_EXIT_CODE = re.compile(r"exit code (-?\d+)")
_TERMINATED = re.compile(r"receives a (SIG[A-Z]+)")


@contextmanager
def kept(folder: WorkFolder, rank: int = 0) -> Iterator[None]:
    """Send this process's standard error, that of C libraries too, into the trial's folder while inside.

    Without a word on it the file is removed at the end. On a disk that takes no file, all stays as it is.
    """
    path = file_of(folder, rank)
    before = None
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        before = os.dup(_STDERR)
        os.dup2(new, _STDERR)
        os.close(new)
    try:
        yield
    finally:
        if before is not None:
            sys.stderr.flush()
            os.dup2(before, _STDERR)
            os.close(before)
            with suppress(OSError):
                if not path.stat().st_size:
                    path.unlink()


def file_of(folder: WorkFolder, rank: int = 0) -> Path:
    """Return the file with what a worker of this rank wrote in the last attempt."""
    return folder.path / f"worker-{rank}.err"


def cause(folder: WorkFolder, ray_message: str = "") -> tuple[str, str]:
    """Return in one line why the last attempt's process died, and the end of what it wrote.

    Args:
        folder: of its work.
        ray_message: what Ray says of the process's end.
    """
    tails = [(path, _tail(path)) for path in sorted(folder.path.glob("worker-*.err"))]
    for path, lines in tails:
        for number, line in enumerate(lines):
            if signal := _signal(line):
                word = _last(lines[:number])
                death = f"{signal}, {word!r}" if word else signal
                return f"{death}; all that it wrote is in {path}", "\n".join(lines[max(0, number - 5) :][:_LINES])
    for path, lines in tails:
        if word := _last(lines):
            return f"{_silent(ray_message)}; its last words, in {path}: {word!r}", "\n".join(lines[-_LINES:])
    return _silent(ray_message), ""


def _silent(ray_message: str) -> str:
    """Say what is known of a process that wrote nothing on its end."""
    if ray_message == OUT_OF_MEMORY:
        return ray_message
    if terminated := _TERMINATED.search(ray_message):
        return f"ended from outside ({terminated[1]})"
    if code := _EXIT_CODE.search(ray_message):
        return f"it left with exit code {code[1]}"
    return "ended without a word, as by SIGKILL (kill -9, or the system when memory is short)"


def _signal(line: str) -> str:
    """Return the signal that a line tells of, empty where it does not."""
    if ray := _RAY.match(line):
        return ray[1]
    python = _PYTHON.match(line)
    return _PYTHON_NAMES.get(python[1], python[1]) if python else ""


def _last(lines: list[str]) -> str:
    return next((line.strip()[:_LONGEST] for line in reversed(lines) if line.strip()), "")


def _tail(path: Path) -> list[str]:
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()
    return []
