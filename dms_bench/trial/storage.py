"""Where a suite keeps what it must not lose, laid out by content hash.

```
<storage>/<suite>/lock                       held by the driver
<storage>/<suite>/trials/<hash>/             one per trial
<storage>/<suite>/supernets/<hash>/          one per pretrained supernet, shared by trials
<storage>/<suite>/searches/<hash>/           one per search for several budgets, shared by their trials
    lock                                     held by the process that works on it
    spec.json                                what is computed here
    mlflow_run                               the id of the trial's run; empty while it is being created
    attempts/0001.json                       what each attempt has cost so far
    <stage>/checkpoint-00003-<digest>.pt     the stage's newest epochs
    <stage>/done.json                        written last: the stage is finished, with its outputs' digests
    result.json | failure.json | stopped.json  how it ended
<storage>/<suite>/latency/<hash>.json        a latency model, measured once per supernet and device
<storage>/<suite>/samples/<hash>.json        what a sampled sweep has drawn
```

Every file appears whole or not at all: it is written under another name, synced and renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dms_bench.errors import TrialFailure, UserError

#: Seconds to wait for a process of a killed run to let go of a folder; Ray ends such processes soon.
CLAIM_SECONDS = 60.0


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` so that a reader, or a crash, never sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: Path, seconds: float = 0.0) -> Iterator[bool]:
    """Hold the lock file `path` and yield True, or yield False when others keep it for `seconds`.

    The lock ends with the process that holds it, however that ends. The file names the process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    with path.open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(0.1)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield True


@dataclass(frozen=True)
class StageFolder:
    """The files of one stage; the stage is finished when its marker is there."""

    path: Path

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.path.name

    @property
    def _marker(self) -> Path:
        return self.path / "done.json"

    def output(self, name: str) -> Path:
        """Return the path of an output file, making the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        return self.path / name

    def finish(self, outputs: tuple[str, ...], history: list[dict[str, Any]]) -> None:
        """Mark the stage as finished and drop its checkpoints.

        Args:
            outputs: names of the files that the stage has made in its folder.
            history: metrics of its epochs, each with the key `epoch`.
        """
        record = {"outputs": {name: digest(self.path / name) for name in outputs}, "history": history}
        write_atomic(self._marker, json.dumps(record))
        for path in self.path.rglob("checkpoint-*.pt"):
            path.unlink()

    def finished(self) -> bool:
        """Tell whether the stage is finished.

        Raises:
            TrialFailure: it is, but a file that it made is missing or damaged.
        """
        if not self._marker.exists():
            return False
        for name, expected in self._record()["outputs"].items():
            path = self.path / name
            if not path.exists() or digest(path) != expected:
                raise TrialFailure(f"{path} is missing or damaged; delete {self.path} to run this stage again")
        return True

    def history(self) -> list[dict[str, Any]]:
        """Return the metrics of the finished stage's epochs, none for an unfinished one."""
        return list(self._record()["history"]) if self._marker.exists() else []

    def _record(self) -> dict[str, Any]:
        try:
            record = json.loads(self._marker.read_text())
            return {"outputs": dict(record["outputs"]), "history": list(record["history"])}
        except (ValueError, KeyError, TypeError) as error:
            raise TrialFailure(f"{self._marker} is damaged; delete {self.path} to run this stage again") from error


@dataclass(frozen=True)
class WorkFolder:
    """The folder of one trial, or of what trials share: a supernet, a search."""

    path: Path

    @property
    def attempts(self) -> Path:
        """The folder with a file per attempt."""
        return self.path / "attempts"

    @property
    def result(self) -> Path:
        """The file whose presence means: finished."""
        return self.path / "result.json"

    @property
    def run_id(self) -> Path:
        """The file that keeps the id of the trial's run in MLflow."""
        return self.path / "mlflow_run"

    def stage(self, name: str) -> StageFolder:
        """Return the folder of the stage `name`."""
        return StageFolder(self.path / name)

    @contextmanager
    def claimed(self, seconds: float = CLAIM_SECONDS) -> Iterator[None]:
        """Work on this folder alone, waiting for the remains of a killed run to end.

        Raises:
            TrialFailure: another process still works on it after `seconds`.
        """
        with locked(self.path / "lock", seconds) as acquired:
            if not acquired:
                raise TrialFailure(f"{self.path}: process {(self.path / 'lock').read_text()} still works on it")
            yield

    def failure(self) -> str | None:
        """Return why the last attempt failed, or None."""
        path = self.path / "failure.json"
        return str(json.loads(path.read_text())["message"]) if path.exists() else None

    def fail(self, message: str, details: str = "") -> None:
        """Record that the work failed, with `details` (a traceback) for whoever looks into it."""
        write_atomic(self.path / "failure.json", json.dumps({"message": message, "details": details}, indent=1))

    def forget_failure(self) -> None:
        """Remove the record of an earlier failure, at the start of another attempt."""
        (self.path / "failure.json").unlink(missing_ok=True)

    def stop(self, message: str, value: float) -> None:
        """Record that a scheduler ended the work early, and the validation value that it had reached."""
        write_atomic(self.path / "stopped.json", json.dumps({"message": message, "value": value}))

    def stopped(self) -> tuple[str, float] | None:
        """Return why and at which value a scheduler ended the work, None if it did not."""
        path = self.path / "stopped.json"
        if not path.exists():
            return None
        record = json.loads(path.read_text())
        return str(record["message"]), float(record["value"])


@dataclass(frozen=True)
class SuiteFolder:
    """The folder of one suite."""

    path: Path

    @classmethod
    def of(cls, storage: str, suite: str) -> SuiteFolder:
        """Return the suite's folder below `storage`, which is absolute or relative to the working folder."""
        return cls(Path(storage).expanduser().absolute() / suite)

    def trial(self, hash_: str) -> WorkFolder:
        """Return the folder of the trial with this hash."""
        return WorkFolder(self.path / "trials" / hash_)

    def supernet(self, hash_: str) -> WorkFolder:
        """Return the folder of the pretrained supernet with this hash."""
        return WorkFolder(self.path / "supernets" / hash_)

    def search(self, hash_: str) -> WorkFolder:
        """Return the folder of the search for several budgets with this hash."""
        return WorkFolder(self.path / "searches" / hash_)

    @property
    def latency(self) -> Path:
        """Where trials share the latency models that they have measured."""
        return self.path / "latency"

    @property
    def scratch(self) -> Path:
        """Ray Tune's own files; nothing in there is needed once the driver has ended."""
        return self.path / "ray"

    @contextmanager
    def claimed(self, seconds: float = 0.0) -> Iterator[None]:
        """Be the suite's only driver, waiting so long for the remains of a killed one to end.

        Raises:
            UserError: another driver runs the suite, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "lock").open("a").close()
        except OSError as error:
            raise UserError(f"storage {self.path}: {error.strerror or error}") from error
        with locked(self.path / "lock", seconds) as acquired:
            if not acquired:
                holder = (self.path / "lock").read_text()
                raise UserError(f"suite {self.path.name!r} is already running (process {holder} works in {self.path})")
            try:
                yield
            finally:
                shutil.rmtree(self.scratch, ignore_errors=True)

    def check_room(self) -> None:
        """Make sure that something can be written.

        Raises:
            TrialFailure: the disk is full, or cannot be written any more.
        """
        probe = self.path / ".room"
        try:
            write_atomic(probe, b"\0" * 2**16)
            probe.unlink()
        except OSError as error:
            raise TrialFailure(
                f"storage {self.path}: {error.strerror}; make room, and the same command goes on from here"
            ) from error

    def clear(self, trials: Collection[str]) -> None:
        """Forget these trials (hashes), and what trials share, which is made again at need."""
        for hash_ in trials:
            shutil.rmtree(self.trial(hash_).path, ignore_errors=True)
        for name in ("supernets", "searches", "latency"):
            shutil.rmtree(self.path / name, ignore_errors=True)
