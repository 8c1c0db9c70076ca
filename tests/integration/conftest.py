"""Suites of the toy task, run as a user runs them: in a process of their own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from dms_bench.runtime import nodes, schedule, session
from dms_bench.runtime.hooks import Observer
from dms_bench.runtime.worker import carry_out
from dms_bench.tracking import TrialResult
from dms_bench.trial.storage import SuiteFolder, WorkFolder
from dms_bench.trial.work import Work

#: A package of its own, with a test of its own: test_plugin.py installs it and runs that.
collect_ignore = ["plugin_task"]
PLUGIN = Path(__file__).parent / "plugin"
LIMIT = 240.0


class Command:
    """`dms-bench run` on a suite in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        self._processes: list[subprocess.Popen[str]] = []

    def write(self, name: str, experiment: dict[str, Any], **suite: Any) -> None:
        toy = {
            "name": "mlp",
            "task": {"kind": "toy"},
            "supernet": {"model": "mlp"},
            "budget": {"kind": "macs", "target": "50%"},
            "method": "half",
            "search": {"epochs": 2},
            "retrain": {"epochs": 3},
        }
        content = {"name": name, "experiments": [toy | experiment], **suite}
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(content))

    def start(self, name: str, *options: str, verb: str = "run", **environment: str) -> subprocess.Popen[str]:
        before = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        path = os.pathsep.join([str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, "-m", "dms_bench", verb, f"{name}.yaml", *options],
            cwd=self.folder,
            env=before | {"PYTHONPATH": path, "TOY_JOURNAL": str(self.journal), "OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell lets what it runs in the background ignore Ctrl-C, and this would inherit it.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        self._processes.append(process)
        return process

    def run(self, name: str, *options: str, verb: str = "run", **environment: str) -> tuple[int, str]:
        """Run to the end; returns exit code and output."""
        process = self.start(name, *options, verb=verb, **environment)
        output, _ = process.communicate(timeout=LIMIT)
        return process.returncode, output

    def entries(self, word: str = "epoch") -> list[tuple[str, ...]]:
        """The journal's lines of a kind: (trial hash, stage, epoch)."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        found = [line.split() for line in lines]
        return [(*Path(line[2]).parts[-2:], *line[3:]) for line in found if line[1] == word]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline, "the run did not get there"
            time.sleep(0.05)

    def trials(self, name: str) -> dict[str, WorkFolder]:
        trials = SuiteFolder.of(str(self.folder / "runs"), name).path / "trials"
        return {path.name: WorkFolder(path) for path in sorted(trials.glob("*"))}

    def results(self, name: str) -> dict[str, TrialResult]:
        return {
            key: TrialResult.model_validate_json(folder.result.read_text())
            for key, folder in self.trials(name).items()
            if folder.result.exists()
        }

    def board(self, name: str) -> str:
        """The leaderboard, without the suite's name and what depends on the clock."""
        output = subprocess.run(
            [sys.executable, "-m", "dms_bench", "leaderboard", "--suite", name, "--format", "csv"],
            cwd=self.folder, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        heading, *rows = [line.split(",") for line in output.splitlines()]
        assert rows
        same = [title != "suite" and "latency" not in title and "days" not in title for title in heading]
        kept = [[cell for cell, stays in zip(row, same, strict=True) if stays] for row in (heading, *rows)]
        return "\n".join(map(",".join, kept))

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


@pytest.fixture
def command(tmp_path: Path, empty_store: Path) -> Iterator[Command]:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    command = Command(tmp_path)
    yield command
    command.end()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have work done in this process."""

    def run_all(works: Sequence[Work], scratch: Path, observer: Observer, most: int | None, **_: Any) -> None:
        for work in works:
            observer.started(work)
            carry_out(work, lambda metrics: None)
            observer.ended(work, died=False)

    monkeypatch.setattr(schedule, "run_all", run_all)
    monkeypatch.setattr(session, "ray_session", contextlib.nullcontext)
    monkeypatch.setattr(nodes, "check_nodes", lambda *arguments: None)
    monkeypatch.setattr(nodes, "resources_here", lambda: [{"CPU": 2.0}])
