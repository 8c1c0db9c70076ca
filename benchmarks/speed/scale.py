"""A suite of thousands of trials, whose training is replaced by a stub, in here only: what dms_bench itself costs.

`python benchmarks/speed/scale.py --trials 10000 --output benchmarks/speed/scale.csv` on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from dms_bench.config import load_suite, trial_count
from dms_bench.runtime import driver as driving
from dms_bench.runtime import schedule
from dms_bench.runtime.run import run_suite
from dms_bench.tracking import StageCost, TrialResult
from dms_bench.tracking.environment import cpu_name, git_commit
from dms_bench.trial.storage import write_atomic
from dms_bench.trial.work import Work

#: Combinations of budget and method in the suite.
_KINDS = 8


def suite(trials: int) -> dict[str, Any]:
    """Return a suite of so many trials, or a few more."""
    recipe = {"epochs": 1, "batch_size": 64, "opt": "sgd", "lr": 0.1}
    return {
        "name": "scale",
        "experiments": [
            {
                "name": "digits",
                "task": {"kind": "classification", "data": {"name": "digits"}},
                "supernet": {"model": "test_efficientnet"},
                "search": recipe,
                "retrain": recipe,
                "sweep": {
                    "grid": {
                        "budget": [{"kind": "macs", "target": f"{share}%"} for share in (30, 40, 50, 60)],
                        "method": ["dms", "random"],
                        "seed": list(range(math.ceil(trials / _KINDS))),
                    }
                },
            }
        ],
    }


def stub(config: dict[str, str]) -> None:
    """Be a trial that takes no time: its folder and its run in MLflow are those of a real one, without artifacts."""
    from dms_bench.trial.publish import open_run

    begun = time.monotonic()
    work = Work.model_validate_json(config["work"])
    with work.folder.claimed():
        result = TrialResult(
            metric=work.trial.task.metric,
            value=50 + work.trial.seed % 50 / 10,
            macs=1000,
            params=1000,
            supernet_macs=2000,
            supernet_params=2000,
            targets={"macs": 1000.0},
            seed=work.trial.seed,
            costs=[StageCost(stage="search", device="stub", kind="cpu", devices=1, seconds=1)],
        )
        write_atomic(work.folder.result, result.model_dump_json())
        open_run(work).finish(result)
    journal = Path(work.suite_folder).parent.parent / "seconds"
    with journal.open("a") as file:
        file.write(f"{time.monotonic() - begun}\n")


class Samples:
    """The driver's processor time and memory, whenever a trial ends."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.memory: list[float] = []

    def take(self) -> None:
        """Take a sample."""
        self.wall.append(time.monotonic())
        self.cpu.append(time.process_time())
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory.append(pages * resource.getpagesize() / 2**20)

    def tenth(self, which: int) -> tuple[float, float]:
        """Return wall and processor milliseconds per trial in a tenth of the trials (0 is the first)."""
        size = len(self.wall) // 10
        first, last = which * size, (which + 1) * size - 1
        spans = (values[last] - values[first] for values in (self.wall, self.cpu))
        wall, cpu = (1000 * span / (last - first) for span in spans)
        return wall, cpu


@contextmanager
def stubbed(samples: Samples) -> Any:
    """Replace training by the stub, and take a sample at the end of each trial."""
    real, ended = schedule.tune_function, driving.Driver.ended

    def sampled(self: driving.Driver, work: Work, died: bool) -> None:
        ended(self, work, died)
        samples.take()

    schedule.tune_function, driving.Driver.ended = stub, sampled
    try:
        yield
    finally:
        schedule.tune_function, driving.Driver.ended = real, ended


def timed(*words: str) -> tuple[float, float]:
    """Return wall and processor seconds of a command of ours."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "dms_bench", *words], check=True, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(trials: int) -> dict[str, float | int | str]:
    """Plan, run and compare a suite of so many trials; returns a row of the table."""
    from rich.console import Console

    Path("scale.yaml").write_text(yaml.safe_dump(suite(trials)))
    loaded = load_suite(Path("scale.yaml"))
    count = trial_count(loaded)
    plan = timed("plan", "scale.yaml")
    samples = Samples()
    with stubbed(samples):
        begun = time.monotonic()
        code = run_suite(loaded, console=Console(file=io.StringIO()))
        wall = time.monotonic() - begun
    assert code == 0
    assert len(samples.wall) == count
    inside = [float(line) for line in Path("seconds").read_text().split()]
    board = timed("leaderboard", "--suite", "scale")
    first, last = samples.tenth(0), samples.tenth(9)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": git_commit(Path(__file__).parent) or "unknown",
        "machine": f"{cpu_name()}, {os.cpu_count()} cores",
        "trials": count,
        "plan [s]": round(plan[0], 2),
        "plan, processor [s]": round(plan[1], 2),
        "run [s]": round(wall, 1),
        "stub, first tenth [ms/trial]": round(1000 * statistics.fmean(inside[: count // 10]), 1),
        "stub, last tenth [ms/trial]": round(1000 * statistics.fmean(inside[-count // 10 :]), 1),
        "first tenth [ms/trial]": round(first[0], 1),
        "last tenth [ms/trial]": round(last[0], 1),
        "driver, first tenth [processor ms/trial]": round(first[1], 1),
        "driver, last tenth [processor ms/trial]": round(last[1], 1),
        "driver memory, first trial [MiB]": round(samples.memory[0]),
        "driver memory, last trial [MiB]": round(samples.memory[-1]),
        "leaderboard [s]": round(board[0], 2),
        "leaderboard, processor [s]": round(board[1], 2),
    }


def main() -> None:
    """Measure in a folder of its own, print the row and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--output", type=Path, help="CSV file to write")
    options = parser.parse_args()
    output = options.output and options.output.absolute()
    with tempfile.TemporaryDirectory(prefix="scale") as folder:
        os.chdir(folder)
        row = measure(options.trials)
        os.chdir("/")
    for name, value in row.items():
        print(f"{name:42} {value}")
    if output:
        with output.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    main()
