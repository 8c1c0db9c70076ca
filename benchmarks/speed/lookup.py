"""How long it takes to find a trial's run again in a SQLite store: by the id in its folder, and by a search.

`python benchmarks/speed/lookup.py --runs 100 1000 10000`
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
import uuid
from pathlib import Path

from dms_bench.config import load_suite, resolve
from dms_bench.tracking import Remembered, TrialResult, TrialRun, connect, open_suite
from dms_bench.tracking.find_run import find_run
from dms_bench.tracking.store import sqlite_path

_SUITE = Path(__file__).parents[1] / "quick.yaml"
_REPEATS = 30
#: Tables that hold what is said of a run.
_OF_RUNS = ("tags", "params", "latest_metrics")


def filled(uri: str, runs: int) -> tuple[str, str, str]:
    """Make a store of so many finished trials; return the experiment, and the run and hash of one in the middle."""
    suite = load_suite(_SUITE)
    trial = resolve(suite)[0]
    parent = open_suite(uri, suite, {"torch": "2.15.0", "git_commit": "0" * 40})
    run = TrialRun(uri, parent.experiment_id, parent.parent_id, trial, {})
    for stage in ("search", "retrain"):
        run.log(stage, 1, {f"metric{number}": 0.5 for number in range(12)})
    run.finish(
        TrialResult(
            metric=trial.task.metric,
            value=50.0,
            macs=1,
            params=1,
            supernet_macs=2,
            supernet_params=2,
            targets={"macs": 1.0},
            seed=trial.seed,
        )
    )
    path = sqlite_path(uri)
    assert path is not None
    assert run.run_id is not None
    with sqlite3.connect(path) as database:
        ids = [uuid.uuid4().hex for _ in range(runs - 1)]
        _copy(database, "runs", run.run_id, ids)
        for table in _OF_RUNS:
            _copy(database, table, run.run_id, ids)
        hashes = [(f"{number:012x}", copy) for number, copy in enumerate(ids)]
        database.executemany("UPDATE tags SET value = ? WHERE key = 'dms.trial' AND run_uuid = ?", hashes)
    return parent.experiment_id, *reversed(hashes[len(hashes) // 2])


def _copy(database: sqlite3.Connection, table: str, run_id: str, ids: list[str]) -> None:
    """Insert the rows of a run once more for each of some others."""
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    at = columns.index("run_uuid")
    rows = database.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run_id,)).fetchall()
    copies = ((*row[:at], copy, *row[at + 1 :]) for copy in ids for row in rows)
    database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", copies)


def milliseconds(uri: str, experiment: str, trial: str, remembered: Remembered) -> float:
    """Return the median time of finding a run, which must be found."""
    client, taken = connect(uri), []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        assert find_run(client, uri, experiment, trial, remembered) is not None
        taken.append(1000 * (time.perf_counter() - begun))
    return statistics.median(taken)


def main() -> None:
    """Measure and print a line for each number of runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000, 10_000])
    for runs in parser.parse_args().runs:
        with tempfile.TemporaryDirectory(prefix="lookup") as folder:
            uri, kept = f"sqlite:///{folder}/mlflow.db", Path(folder) / "mlflow_run"
            experiment, run_id, trial = filled(uri, runs)
            kept.write_text(run_id)
            by_id, by_search = (milliseconds(uri, experiment, trial, Remembered(file)) for file in (kept, None))
        print(f"{runs:6} runs: {by_id:6.2f} ms by its id, {by_search:7.2f} ms by a search")


if __name__ == "__main__":
    main()
