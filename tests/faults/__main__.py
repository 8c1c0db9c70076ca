"""Disturb small suites in every way that is known to happen, and see that nothing is lost or counted twice.

A round is one fault of each kind; `--rounds 10` are 110 faults. The same seed draws the same faults; the moment at
which one strikes also depends on the machine. With `--jobs`, several strike at the same time, each in a suite that has
a Ray, a server and a disk of its own; rows are in the order of their ends. It lives with the tests, not with the
benchmarks: it measures nothing, it passes or fails, and needs their toy task.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from dms_bench.errors import UserError
from tests.faults import kinds
from tests.faults.arena import Arena, BrokenPromiseError
from tests.faults.places import Disk, Server

COLUMNS = ("number", "fault", "workers", "what happened", "seconds", "outcome")


class Campaign:
    """Faults of all kinds, one after the other, on suites in one folder; with a server and a disk of its own."""

    def __init__(self, folder: Path, away: float, stack: ExitStack) -> None:
        folder.mkdir()
        self._folder = folder
        server = Server(folder / "server")
        stack.callback(server.kill)
        on_server: dict[str, Any] = {"server": server.address}
        #: Name -> (fault, what its arena has that others have not).
        self.kinds: dict[str, tuple[kinds.Fault, dict[str, Any]]] = {
            "driver killed": (kinds.driver, {}),
            "Tune actor killed": (kinds.actor, {}),
            "Train worker killed": (kinds.actor, {"workers": 2}),
            "raylet killed": (kinds.raylet, {}),
            "MLflow server killed": (kinds.server_killed(server), on_server),
            "MLflow server away": (kinds.server_away(server, away), on_server),
            "checkpoint cut short": (kinds.cut_checkpoint, {}),
            "checkpoint's bytes flipped": (kinds.flipped_bytes, {}),
            "clock jumps": (kinds.clock, {}),
            "two drivers": (kinds.second_driver, {}),
        }
        try:
            disk = Disk(folder / "disk")
        except UserError as error:
            print(f"left out: disk full ({error})", file=sys.stderr)
        else:
            stack.callback(disk.close)
            self.kinds["disk full"] = (kinds.full_disk(disk), {"storage": disk.folder})

    def workers(self, name: str) -> int:
        """Return the number of workers of a kind's trials."""
        return int(self.kinds[name][1].get("workers", 1))

    def fault(self, number: int, name: str, chance: random.Random, undisturbed: str) -> dict[str, Any]:
        """Run one suite, disturbed; returns a row of the table."""
        fault, needs = self.kinds[name]
        arena = Arena(self._folder / f"{number:04d}", f"f{number:04d}", chance, **needs)
        begun, happened, outcome = time.monotonic(), "", "as undisturbed"
        try:
            happened = fault(arena)
            arena.check(undisturbed)
        except BrokenPromiseError as broken:
            outcome = " ".join(str(broken).split())
        finally:
            arena.close()
        if outcome == "as undisturbed":
            shutil.rmtree(arena.folder)
            shutil.rmtree(arena.suite.path, ignore_errors=True)
        seconds = round(time.monotonic() - begun, 1)
        return dict(zip(COLUMNS, (number, name, arena.workers, happened, seconds, outcome), strict=True))


def undisturbed_board(folder: Path, workers: int) -> str:
    """Return the leaderboard of a suite that nobody disturbs."""
    arena = Arena(folder / f"calm{workers}", f"calm{workers}", random.Random(0), workers=workers)
    arena.finish()
    board = arena.board()
    arena.check(board)
    return board


def _rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="faults"))
    with ExitStack() as stack:
        campaigns = [Campaign(folder / f"job{job}", options.away, stack) for job in range(options.jobs)]
        names = options.kind or list(campaigns[0].kinds)
        if unknown := set(names) - set(campaigns[0].kinds):
            raise UserError(f"no such kinds: {', '.join(sorted(unknown))}; there are {', '.join(campaigns[0].kinds)}")
        workers = {name: campaigns[0].workers(name) for name in names}
        boards = {number: undisturbed_board(folder, number) for number in set(workers.values())}
        order = [name for _ in range(options.rounds) for name in names]
        random.Random(options.seed).shuffle(order)
        free = SimpleQueue[Campaign]()
        for campaign in campaigns:
            free.put(campaign)

        def strike(number: int, name: str) -> dict[str, Any]:
            campaign = free.get()
            try:
                chance = random.Random(f"{options.seed} {number} {name}")
                return campaign.fault(number, name, chance, boards[workers[name]])
            finally:
                free.put(campaign)

        with ThreadPoolExecutor(options.jobs) as pool:
            pending = [pool.submit(strike, number, name) for number, name in enumerate(order, start=1)]
            try:
                for done in as_completed(pending):
                    yield done.result()
            finally:
                pool.shutdown(cancel_futures=True)
    if any(folder.glob("job*/[0-9]*")):
        print(f"suites that failed are in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)


def main() -> int:
    """Run the campaign; returns 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="faults of each kind (10)")
    parser.add_argument("--seed", type=int, default=0, help="what is drawn (0)")
    parser.add_argument("--away", type=float, default=60.0, help="seconds that the server does not answer (60)")
    parser.add_argument("--jobs", type=int, default=1, help="faults at the same time, each with its own Ray (1)")
    parser.add_argument("--kind", action="append", help="only this kind; again for more")
    parser.add_argument("--output", type=Path, help="CSV file to write, row by row")
    options = parser.parse_args()
    broken = 0
    with options.output.open("w", newline="") if options.output else contextlib.nullcontext() as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n") if file else None
        if writer:
            writer.writeheader()
        for row in _rows(options):
            broken += row["outcome"] != "as undisturbed"
            print("  ".join(str(value) for value in row.values()), flush=True)
            if writer and file:
                writer.writerow(row)
                file.flush()
    print(f"{broken} promises broken" if broken else "every leaderboard as undisturbed")
    return 1 if broken else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
