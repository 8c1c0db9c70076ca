"""A suite of the toy task that is run, disturbed, run again, and compared with one that nobody disturbed."""

from __future__ import annotations

import csv
import io
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from dms_bench.report import leaderboard, render
from dms_bench.tracking import TrialResult
from dms_bench.tracking.reading import read_trials
from dms_bench.trial.meter import costs
from dms_bench.trial.storage import SuiteFolder, WorkFolder

PLUGIN = Path(__file__).parents[1] / "integration" / "plugin"
#: Seconds for anything to happen, on a loaded machine.
LIMIT = 300.0
#: An epoch takes so long that what a killed attempt has done costs more than what its last second may hide.
STEPS, PAUSE = 4, 0.15
EPOCHS = {"search": 3, "retrain": 4}
#: Seeds of the suite's trials; a trial of two workers takes half a minute to start.
SEEDS = {1: 3, 2: 1}
#: An attempt writes down its time every second: what is killed loses at most this, and what a loaded disk adds.
_BEAT = 1.5


class BrokenPromiseError(Exception):
    """A promise that was not kept after a fault."""


@dataclass
class Arena:
    """One suite in a folder of its own, and the processes that this campaign has started for it."""

    folder: Path
    name: str
    random: random.Random
    workers: int = 1
    #: Of an MLflow server; a database in the folder otherwise.
    server: str | None = None
    #: Where checkpoints go, if not into the folder.
    storage: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.journal = self.folder / "journal"
        self.uri = self.server or f"sqlite:///{self.folder}/mlflow.db"
        self.began = time.monotonic()
        self._drivers: list[subprocess.Popen[str]] = []
        recipe = {"steps": STEPS, "pause": PAUSE}
        experiment = {
            "name": "mlp",
            "task": {"kind": "toy"},
            "supernet": {"model": "mlp"},
            "budget": {"kind": "macs", "target": "50%"},
            "method": "half",
            **{stage: {**recipe, "epochs": epochs} for stage, epochs in EPOCHS.items()},
            "sweep": {"grid": {"seed": list(range(SEEDS[self.workers]))}},
        }
        suite = {
            "name": self.name,
            "tracking": self.uri,
            "storage": str(self.storage or self.folder / "runs"),
            "resources": {"workers": self.workers},
            "experiments": [experiment],
        }
        (self.folder / "suite.yaml").write_text(yaml.safe_dump(suite))
        self.suite = SuiteFolder.of(suite["storage"], self.name)

    @property
    def expected(self) -> int:
        """Number of epochs of an undisturbed run, of all workers."""
        return SEEDS[self.workers] * self.workers * sum(EPOCHS.values())

    def start(self) -> subprocess.Popen[str]:
        """Start a driver."""
        before = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        own = {"PYTHONPATH": str(PLUGIN), "TOY_JOURNAL": str(self.journal), "OMP_NUM_THREADS": "1"}
        driver = subprocess.Popen(
            [sys.executable, "-m", "dms_bench", "run", "suite.yaml"],
            cwd=self.folder, env=before | own | self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._drivers.append(driver)
        return driver

    def end(self, driver: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for a driver; returns its exit code and output."""
        try:
            output, _ = driver.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            kill_tree(driver.pid)
            output, _ = driver.communicate()
            raise BrokenPromiseError(f"the driver hung: {output[-300:]}") from None
        if "Traceback" in output:
            raise BrokenPromiseError(f"a traceback: {output[-300:]}")
        return driver.returncode, output

    def finish(self) -> None:
        """Give the command again, as a user would."""
        code, output = self.end(self.start())
        if code != 0:
            raise BrokenPromiseError(f"the command again ended with {code}: {output[-300:]}")

    def lines(self, word: str) -> list[tuple[int, Path, str]]:
        """Process, stage and epoch of the journal's lines of a kind."""
        text = self.journal.read_text() if self.journal.exists() else ""
        words = [line.split() for line in text.splitlines()]
        return [(int(line[0]), Path(line[2]), line[3]) for line in words if line[1] == word and len(line) > 3]

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something holds, as long as there is a driver that could bring it about."""
        deadline = time.monotonic() + LIMIT
        while True:
            ended = all(driver.poll() is not None for driver in self._drivers)
            if condition():
                return
            if ended or time.monotonic() > deadline:
                raise BrokenPromiseError(f"{what}: not {'before the driver ended' if ended else f'in {LIMIT:g} s'}")
            time.sleep(0.02)

    def anywhere(self, left: int = 3) -> str:
        """Wait for a moment in the middle of the suite, drawn by chance, with epochs left; returns which."""
        moment = self.random.randint(1, self.expected - left * self.workers)
        self.wait_for(lambda: len(self.lines("epoch")) >= moment, "epochs")
        return f"after {moment} of {self.expected} epochs"

    def trials(self) -> list[WorkFolder]:
        """Folders of the trials."""
        return [WorkFolder(path) for path in sorted(self.suite.path.glob("trials/*"))]

    def board(self) -> str:
        """The leaderboard, without the suite's name and what depends on the clock."""
        text = render(leaderboard(self.uri, self.name), "csv", "")
        heading, *rows = csv.reader(io.StringIO(str(text)))
        kept = [title != "suite" and "latency" not in title and "days" not in title for title in heading]
        return "\n".join(",".join(cell for cell, same in zip(row, kept, strict=True) if same) for row in rows)

    def check(self, undisturbed: str) -> None:
        """See that all promises were kept.

        Raises:
            BrokenPromiseError: one was not.
        """
        results = {
            folder.path.name: TrialResult.model_validate_json(folder.result.read_text())
            for folder in self.trials()
            if folder.result.exists()
        }
        if len(results) != SEEDS[self.workers]:
            raise BrokenPromiseError(f"{len(results)} trials of {SEEDS[self.workers]}")
        runs = Counter(run.hash for run in read_trials(self.uri, [self.name]))
        if runs != Counter(results.keys()):
            raise BrokenPromiseError(f"runs in MLflow: {dict(runs)}")
        if (board := self.board()) != undisturbed:
            raise BrokenPromiseError(f"another leaderboard: {board}")
        for folder in self.trials():
            self._check_cost(folder, results[folder.path.name])

    def _check_cost(self, folder: WorkFolder, result: TrialResult) -> None:
        """The cost is that of all attempts: no less than the epochs that were trained, no more than has passed."""
        charged = dict.fromkeys(EPOCHS, 0.0)
        for cost in costs(folder):
            charged[cost.stage] = charged.get(cost.stage, 0.0) + cost.seconds
        told = Counter[str]()
        for cost in result.costs:
            told[cost.stage] += cost.seconds
        attempts = len(list(folder.attempts.glob("*.json")))
        passed = time.monotonic() - self.began
        for stage in EPOCHS:
            epochs = sum(path == folder.stage(stage).path for _, path, _ in self.lines("epoch")) / self.workers
            trained = epochs * STEPS * PAUSE
            if told[stage] < trained - _BEAT * (attempts - 1) - 0.05:
                raise BrokenPromiseError(
                    f"{stage} cost {told[stage]:.2f} s, trained {trained:.2f} s in {attempts} attempts"
                )
            if abs(told[stage] - charged[stage]) > 0.01:
                raise BrokenPromiseError(
                    f"{stage}: the result says {told[stage]:.2f} s, its attempts {charged[stage]:.2f} s"
                )
        if not 0 <= sum(told.values()) <= passed:
            raise BrokenPromiseError(f"costs of {sum(told.values()):.0f} s within {passed:.0f} s")

    def close(self) -> None:
        """End what still runs of this arena's own processes."""
        for driver in self._drivers:
            if driver.poll() is None:
                kill_tree(driver.pid)
                driver.wait()
            if driver.stdout is not None:
                driver.stdout.close()


def descendants(pid: int, name: str = "") -> list[psutil.Process]:
    """The living processes below a process of ours, of that name."""
    try:
        found = psutil.Process(pid).children(recursive=True)
        return [process for process in found if name in process.name()]
    except psutil.NoSuchProcess:
        return []


def kill_tree(pid: int) -> None:
    """End a process of ours and all that it has started."""
    for process in [*descendants(pid), psutil.Process(pid)]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
