"""What a rehearsal measures, as it is kept: passes over data, calls of a task, stages, kinds of trials, a suite.

All times are wall seconds, all sizes bytes. Times of one step leave out the first step of a pass, which warms up.
"""

from __future__ import annotations

from statistics import median
from typing import Literal

from pydantic import BaseModel, Field

#: What a kind's stages belong to: the trial itself, or what trials share.
Part = Literal["supernet", "search", "trial"]


class Step(BaseModel):
    """One step of a pass."""

    #: Seconds until its batches were there, and those in which they were worked on.
    wait: float
    compute: float


class Pass(BaseModel):
    """One pass over data, or the first few batches of it."""

    #: Samples of a step, of one worker.
    samples: int
    #: Steps that the pass has; None where nobody knows, and all were made.
    whole: int | None
    steps: list[Step] = Field(default_factory=list)
    #: Wall seconds, without those in which the loader alone was looked at.
    seconds: float = 0.0
    #: Samples per second that the loader's processes give where nobody works on them; None where it has none.
    loaded: float | None = None

    @property
    def _later(self) -> list[Step]:
        """The steps after the one that warms up."""
        return self.steps[1:] or self.steps

    @property
    def compute(self) -> float:
        """Median seconds in which the batches of a step were worked on."""
        return median(step.compute for step in self._later) if self.steps else 0.0

    @property
    def wait(self) -> float:
        """Median seconds that a step waits for its batches: without end, where the loader does not keep up."""
        if not self.steps:
            return 0.0
        if self.loaded is None:
            return median(step.wait for step in self._later)
        return max(0.0, self.samples / self.loaded - self.compute)

    @property
    def step(self) -> float:
        """Seconds of a step, waiting included."""
        return self.compute + self.wait

    @property
    def needed(self) -> float | None:
        """Samples per second that would let no step wait."""
        return self.samples / self.compute if self.compute else None

    @property
    def had(self) -> float | None:
        """Samples per second that the loader gives."""
        if self.loaded is not None:
            return self.loaded
        wait = self.wait
        return self.samples / wait if wait else None

    @property
    def excess(self) -> float:
        """Seconds by which the step that warms up was longer to work on than others: paid once."""
        return max(0.0, self.steps[0].compute - self.compute) if len(self.steps) > 1 else 0.0

    def full(self, workers: int = 1) -> float:
        """Return the seconds of the whole pass.

        Args:
            workers: among whom it is really split, and was not here.
        """
        if self.whole is None or not self.steps:
            return self.seconds
        missing = self.whole / workers - len(self.steps)
        return max(0.0, self.seconds - self.excess + missing * self.step)


class Call(BaseModel):
    """One call of a function of the task."""

    #: training, evaluation on val or test, recalibration, losses.
    purpose: str
    seconds: float = 0.0
    passes: list[Pass] = Field(default_factory=list)
    #: Epochs that it trains for; None where it does not train.
    epochs: int | None = None
    #: Seconds of the one epoch that was rehearsed, to its end.
    epoch: float = 0.0
    #: Of the checkpoint after an epoch.
    checkpoint_bytes: int = 0
    checkpoint_seconds: float = 0.0
    #: Seconds in which several workers add up as many numbers as the network has gradients; None for one.
    collective: float | None = None

    def full(self, workers: int = 1) -> float:
        """Return the seconds of the whole call; `workers` as of `Pass.full`, in training alone."""
        if self.epochs is None:
            return self.seconds + sum(one.full() + one.excess - one.seconds for one in self.passes)
        rehearsed = sum(one.seconds for one in self.passes)
        once = self.seconds - self.epoch + sum(one.excess for one in self.passes)
        each = self.epoch - rehearsed + sum(one.full(workers) for one in self.passes)
        return once + self.epochs * each


class Stage(BaseModel):
    """One stage of a trial, or of what trials share."""

    part: Part
    name: str
    #: Without the stages inside of it.
    seconds: float = 0.0
    calls: list[Call] = Field(default_factory=list)
    #: Most memory that the process and its loaders' processes had at once, and that it had on an accelerator.
    host_bytes: int = 0
    device_bytes: int = 0
    #: By how much more the stage does than was done: candidates that were left out.
    times: float = 1.0

    def full(self, workers: int = 1) -> float:
        """Return the seconds of the whole stage; `workers` as of `Pass.full`."""
        rest = self.seconds - sum(call.seconds for call in self.calls)
        return self.times * (rest + sum(call.full(workers) for call in self.calls))

    @property
    def training(self) -> Pass | None:
        """The first pass of its first training; where it trains nothing, the longest that it makes over data."""
        first = next((one for call in self.calls if call.epochs for one in call.passes if one.steps), None)
        passes = (one for call in self.calls for one in call.passes if one.steps)
        return first or max(passes, key=lambda one: one.whole or 0, default=None)

    @property
    def checkpoint_bytes(self) -> int:
        """Size of its largest checkpoint."""
        return max((call.checkpoint_bytes for call in self.calls), default=0)


class Measured(BaseModel):
    """What was measured of one trial."""

    #: Name of the processor or accelerator, its kind (`cpu`, `gpu`), and how many of them a trial holds.
    device: str = ""
    kind: str = ""
    devices: float = 1.0
    stages: list[Stage] = Field(default_factory=list)
    #: The stage under way; empty at the end.
    at: str = ""
    #: What is left on the disk, by part.
    kept_bytes: dict[Part, int] = Field(default_factory=dict)


class Rehearsed(Measured):
    """What came of one kind of trials."""

    key: str
    #: What people know it by, and the experiments and number of its trials.
    name: str
    experiments: list[str]
    trials: int
    #: When, with how many steps, and by which commit of dms_bench.
    date: str = ""
    steps: int = 0
    commit: str = ""
    #: Workers that a trial has, of which one was rehearsed on a machine that does not have them all; else 1.
    workers_for_one: int = 1
    #: What its samples are: pictures, sequences.
    unit: str = "samples"
    #: Why it did not come to its end; None where it did.
    failure: str | None = None

    def seconds(self, part: Part) -> float:
        """Return the seconds of a trial, or of what it shares with others."""
        return sum(stage.full(self.workers_for_one) for stage in self.stages if stage.part == part)

    def by_stage(self, part: Part) -> dict[str, float]:
        """Return the seconds of each stage."""
        seconds: dict[str, float] = {}
        for stage in self.stages:
            if stage.part == part:
                seconds[stage.name] = seconds.get(stage.name, 0.0) + stage.full(self.workers_for_one)
        return seconds


class Rehearsal(BaseModel):
    """What came of a suite on a machine."""

    suite: str
    profile: str | None
    machine: str
    kinds: list[Rehearsed]
