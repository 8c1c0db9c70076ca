"""Disturb small suites in every way that is known to happen, and see that nothing is lost or counted twice.

A round is one fault of each kind; `--rounds 10` are 110 faults. The same seed draws the same faults; the moment at
which one strikes also depends on the machine. It lives with the tests, not with the benchmarks: it measures
nothing, it passes or fails, and needs their toy task.
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
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dms_bench.errors import UserError
from tests.faults import kinds
from tests.faults.arena import Arena, BrokenPromiseError
from tests.faults.places import Disk, Server

COLUMNS = ("number", "fault", "workers", "what happened", "seconds", "outcome")


class Campaign:
    """Faults of all kinds, on suites in one folder."""

    def __init__(self, folder: Path, seed: int, away: float, stack: ExitStack) -> None:
        self.folder, self._seed, self._number = folder, seed, 0
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
        self._calm: dict[int, str] = {}

    def fault(self, name: str) -> dict[str, Any]:
        """Run one suite, disturbed; returns a row of the table."""
        fault, needs = self.kinds[name]
        undisturbed = self._undisturbed(needs.get("workers", 1))
        self._number += 1
        chance = random.Random(f"{self._seed} {self._number} {name}")
        arena = Arena(self.folder / f"{self._number:04d}", f"f{self._number:04d}", chance, **needs)
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
        return dict(zip(COLUMNS, (self._number, name, arena.workers, happened, seconds, outcome), strict=True))

    def _undisturbed(self, workers: int) -> str:
        """Return the leaderboard of a suite that nobody disturbs."""
        if workers not in self._calm:
            arena = Arena(self.folder / f"calm{workers}", f"calm{workers}", random.Random(0), workers=workers)
            arena.finish()
            self._calm[workers] = arena.board()
            arena.check(self._calm[workers])
        return self._calm[workers]


def _rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="faults"))
    with ExitStack() as stack:
        campaign = Campaign(folder, options.seed, options.away, stack)
        names = options.kind or list(campaign.kinds)
        if unknown := set(names) - set(campaign.kinds):
            raise UserError(f"no such kinds: {', '.join(sorted(unknown))}; there are {', '.join(campaign.kinds)}")
        order = [name for _ in range(options.rounds) for name in names]
        random.Random(options.seed).shuffle(order)
        for name in order:
            yield campaign.fault(name)
    print(f"suites that failed are in {folder}", file=sys.stderr)


def main() -> int:
    """Run the campaign; returns 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="faults of each kind (10)")
    parser.add_argument("--seed", type=int, default=0, help="what is drawn (0)")
    parser.add_argument("--away", type=float, default=60.0, help="seconds that the server does not answer (60)")
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
