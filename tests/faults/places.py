"""What a suite needs beside itself and what may fail: a tracking server, a disk."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from dms_bench.errors import UserError


class Server:
    """An MLflow server on loopback, over SQLite, in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self.address = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        folder.mkdir()
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port),
                "--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db",
                "--artifacts-destination", str(self._folder / "artifacts"),
            ],
            cwd=self._folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not self._answers():
            assert time.monotonic() < deadline, "the MLflow server does not start"
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """`kill -9` of the server and its own processes."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def silent(self, seconds: float) -> None:
        """Take requests and answer none for a while."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.killpg(self._process.pid, signal.SIGCONT)


class Disk:
    """A small file system of its own (a tmpfs), which can be filled."""

    def __init__(self, folder: Path, megabytes: int = 24) -> None:
        folder.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "dms-bench-faults", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if mounted.returncode:
            raise UserError(f"no file system can be mounted here: {mounted.stderr.strip()}")
        self.folder = folder

    def fill(self) -> None:
        """Leave no room."""
        with (self.folder / "ballast").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 2**16)
            except OSError:
                return

    def make_room(self) -> None:
        """Take the ballast away."""
        (self.folder / "ballast").unlink()

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", str(self.folder)], check=True)
