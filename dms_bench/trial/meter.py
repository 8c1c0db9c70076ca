"""What a trial costs: devices x wall time per stage, of every attempt, killed ones included.

Each attempt keeps a file of its own and rewrites it every second, so that an attempt that is
killed loses at most the last second. The same file tells the driver how far the trial is.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, ValidationError

from dms_bench import pace
from dms_bench.tracking import StageCost
from dms_bench.trial.group import Hardware
from dms_bench.trial.storage import WorkFolder, write_atomic

_BEAT_SECONDS = 1.0


class Attempt(BaseModel):
    """One attempt at a trial: what it cost so far, and where it is."""

    device: str
    kind: str
    devices: float
    #: Wall seconds per stage, and the seconds that processors worked for the process meanwhile.
    seconds: dict[str, float] = Field(default_factory=dict)
    processor_seconds: dict[str, float] = Field(default_factory=dict)
    #: Samples that networks were run on, and MACs, backward passes included, per stage, over all workers.
    samples: dict[str, int] = Field(default_factory=dict)
    macs: dict[str, float] = Field(default_factory=dict)
    #: The stage under way, and its last finished epoch.
    stage: str = ""
    epoch: int = 0
    steps: int = 0
    metrics: dict[str, float] = Field(default_factory=dict)


class Meter:
    """Measures one attempt; a context manager. Silent in workers that do not lead."""

    def __init__(self, folder: WorkFolder, hardware: Hardware, *, writes: bool = True) -> None:
        self._attempt = Attempt(device=hardware.device, kind=hardware.kind, devices=hardware.devices)
        self._path = _next(folder.attempts) if writes else None
        self._started: float | None = None
        self._before, self._worked_before, self._worked = 0.0, 0.0, 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="cost meter", daemon=True)

    def __enter__(self) -> Self:
        self._write()
        if self._path is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._path is not None:
            self._thread.join()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the time spent inside to the stage `name`, and not to a stage around it."""
        with self._lock:
            self._charge()
            outer = self._attempt.stage if self._started is not None else None
            self._begin(name)
            self._attempt.epoch, self._attempt.steps = 0, 0
        self._write()
        try:
            with pace.stage(name):
                yield
        finally:
            with self._lock:
                self._charge()
                self._started = None
                if outer is not None:
                    self._begin(outer)
            self._write()

    def _begin(self, name: str) -> None:
        self._attempt.stage = name
        self._before, self._started = self._attempt.seconds.get(name, 0.0), time.monotonic()
        self._worked_before, self._worked = self._attempt.processor_seconds.get(name, 0.0), time.process_time()

    def tick(self) -> None:
        """Count a step."""
        self._attempt.steps += 1

    def passed(self, samples: int, macs: float) -> None:
        """Count a pass of a network in the stage under way (`counted_task`)."""
        with self._lock:
            attempt, stage = self._attempt, self._attempt.stage
            attempt.samples[stage] = attempt.samples.get(stage, 0) + samples
            attempt.macs[stage] = attempt.macs.get(stage, 0.0) + macs

    def epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Note that the stage under way has finished an epoch."""
        with self._lock:
            self._attempt.epoch, self._attempt.metrics = epoch, dict(metrics)

    def _charge(self) -> None:
        if self._started is not None:
            stage, worked = self._attempt.stage, time.process_time() - self._worked
            self._attempt.seconds[stage] = self._before + time.monotonic() - self._started
            self._attempt.processor_seconds[stage] = self._worked_before + worked

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        with self._lock:
            self._charge()
            write_atomic(self._path, self._attempt.model_dump_json())


def attempts(folder: WorkFolder) -> list[Attempt]:
    """Return all attempts at the folder's work, oldest first."""
    readable = []
    for path in sorted(folder.attempts.glob("*.json")):
        # A file emptied by a power failure has nothing to tell, and must not stop the trial.
        with suppress(ValidationError, FileNotFoundError):
            readable.append(Attempt.model_validate_json(path.read_bytes()))
    return readable


def costs(folder: WorkFolder) -> list[StageCost]:
    """Return what each stage has cost on each kind of device, over all attempts."""
    sums: dict[tuple[str, str, str, float], list[tuple[float, int, float, float]]] = {}
    for attempt in attempts(folder):
        for stage, seconds in attempt.seconds.items():
            # Attempts from before it was measured have no time of processors, and so has what they are added to.
            worked = attempt.processor_seconds.get(stage, math.nan)
            spent = (seconds, attempt.samples.get(stage, 0), attempt.macs.get(stage, 0.0), worked)
            sums.setdefault((stage, attempt.device, attempt.kind, attempt.devices), []).append(spent)
    every = []
    for (stage, device, kind, devices), of_attempts in sums.items():
        seconds, samples, macs, worked = (sum(column) for column in zip(*of_attempts, strict=True))
        every.append(
            StageCost(
                stage=stage,
                device=device,
                kind=kind,
                devices=devices,
                seconds=seconds,
                attempts=len(of_attempts),
                samples=round(samples),
                macs=macs,
                processor_seconds=None if math.isnan(worked) else worked,
            )
        )
    return every


def _next(folder: Path) -> Path:
    numbers = [int(path.stem) for path in folder.glob("*.json")]
    return folder / f"{max(numbers, default=0) + 1:04d}.json"
