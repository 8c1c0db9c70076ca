"""From what the kinds of a suite took to what the whole suite will take."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dms_bench.config import Trial
from dms_bench.trial.rehearsal.kinds import Kind
from dms_bench.trial.rehearsal.record import Part, Rehearsed
from dms_bench.trial.work import search_hash, supernet_hash

SECONDS_OF_A_DAY = 86400.0
#: Checkpoints of a stage that are on the disk while the newest one is written.
_CHECKPOINTS = 3
#: In the order in which they are computed.
_PARTS: tuple[Part, ...] = ("supernet", "search", "trial")


@dataclass(frozen=True)
class Piece:
    """One trial, or what trials share, which is computed once."""

    part: Part
    kind: Rehearsed
    seconds: float
    devices: float

    @property
    def days(self) -> float:
        """Device days."""
        return self.seconds * self.devices / SECONDS_OF_A_DAY


@dataclass(frozen=True)
class Projection:
    """A suite, as far as its kinds came to their end."""

    pieces: tuple[Piece, ...]
    #: Kinds that did not.
    unknown: tuple[Kind, ...] = field(default=())

    @property
    def device_days(self) -> dict[str, float]:
        """Device days by device."""
        return _summed((piece.kind.device, piece.days) for piece in self.pieces)

    @property
    def days_by_stage(self) -> dict[str, float]:
        """Device days by stage, the most first."""
        found: list[tuple[str, float]] = []
        for piece in self.pieces:
            stages = piece.kind.by_stage(piece.part)
            found += [(name, each * piece.devices / SECONDS_OF_A_DAY) for name, each in stages.items()]
        return dict(sorted(_summed(found).items(), key=lambda named: -named[1]))

    def wall_seconds(self, devices: float) -> float:
        """Return the seconds from the first trial to the last, as a run starts them.

        Args:
            devices: how many there are, of the kind that the trials run on.
        """
        total = 0.0
        for part in _PARTS:
            of_part = [piece for piece in self.pieces if piece.part == part]
            for shape in dict.fromkeys(piece.devices for piece in of_part):
                seconds = [piece.seconds for piece in of_part if piece.devices == shape]
                total += makespan(seconds, max(1, int(devices / shape + 1e-9)))
        return total

    def disk_bytes(self, at_once: int) -> int:
        """Return the bytes that the storage needs: what is kept of all, and checkpoints of what is under way."""
        kept = sum(piece.kind.kept_bytes.get(piece.part, 0) for piece in self.pieces)
        sizes = [stage.checkpoint_bytes for piece in self.pieces for stage in piece.kind.stages]
        return kept + at_once * _CHECKPOINTS * max(sizes, default=0)


def project(kinds: Sequence[Kind], rehearsed: Mapping[str, Rehearsed]) -> Projection:
    """Sum over all trials of a suite; what trials share counts once.

    Args:
        kinds: of the suite.
        rehearsed: what came of them, by their keys.
    """
    pieces: list[Piece] = []
    unknown: list[Kind] = []
    shared: set[str] = set()
    for kind in kinds:
        measured = rehearsed.get(kind.key)
        if measured is None or measured.failure is not None:
            unknown.append(kind)
            continue
        devices = measured.devices * measured.workers_for_one
        for trial, times in kind.trials:
            for part, key in _shares(trial):
                if key not in shared:
                    shared.add(key)
                    pieces.append(Piece(part, measured, measured.seconds(part), devices))
            pieces += [Piece("trial", measured, measured.seconds("trial"), devices)] * times
    return Projection(tuple(pieces), tuple(unknown))


def makespan(seconds: Iterable[float], slots: int) -> float:
    """Return when the last piece of work is done, where each is begun in turn as soon as one of `slots` is free."""
    free = [0.0] * slots
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def _shares(trial: Trial) -> list[tuple[Part, str]]:
    """Return what a trial shares with others, with its hash."""
    found: list[tuple[Part, str | None]] = [("supernet", supernet_hash(trial)), ("search", search_hash(trial))]
    return [(part, key) for part, key in found if key is not None]


def _summed(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, value in values:
        total[name] = total.get(name, 0.0) + value
    return total
