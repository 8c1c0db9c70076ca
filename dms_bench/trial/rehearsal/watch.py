"""Who looks on at a rehearsal: cuts passes over data short, and notes what everything takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch

from dms_bench.trial.rehearsal.memory import Peak
from dms_bench.trial.rehearsal.record import Call, Part, Pass, Stage, Step

Batch = TypeVar("Batch")
#: Seconds for which a loader alone is looked at.
_LOADER_SECONDS = 20.0
#: Items, where they are no batches, that stand for a step.
_ITEMS = 16


class Onlooker:
    """A `dms_bench.pace.Watch` of one process.

    Args:
        steps: of every pass, after one that warms up.
        device: where networks run.
        times: by how much more a stage really does, by its name.
        changed: is told of every stage that begins or ends.
    """

    def __init__(
        self, steps: int, device: torch.device, times: Mapping[str, float], changed: Callable[[], None]
    ) -> None:
        self.steps, self.device = steps, device
        self.stages: list[Stage] = []
        self.part: Part = "trial"
        #: The stages and calls under way, the innermost last, and the stage in which something went wrong.
        self._open: list[Stage] = []
        self._failed = ""
        self._calls: list[Call] = []
        self._times, self._changed = times, changed
        self._peak = Peak(device)
        #: Seconds that are nobody's, and when the call under way got to its first batch, or to its items.
        self._forgotten, self.first_batch, self._asked = 0.0, 0.0, 0.0
        self._since = self.clock()

    def clock(self) -> float:
        """Return the time in seconds, but for that in which a loader alone was looked at."""
        return time.perf_counter() - self._forgotten

    @property
    def at(self) -> str:
        """The stage under way, or in which something went wrong; empty between two."""
        return self._failed or (self._open[-1].name if self._open else "")

    @contextmanager
    def of(self, part: Part) -> Iterator[None]:
        """Charge what is done inside to a part of the trial."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note the stage inside, whose time is not that of a stage around it."""
        self._charge()
        stage = Stage(part=self.part, name=name, times=self._times.get(name, 1.0))
        self.stages.append(stage)
        self._open.append(stage)
        self._changed()
        try:
            yield
        except BaseException:
            self._failed = self._failed or name
            raise
        finally:
            self._charge()
            self._open.pop()
            self._changed()

    def _charge(self) -> None:
        """Give time and memory since the last change to the stage under way."""
        now, (host, device) = self.clock(), self._peak.taken()
        if self._open:
            stage = self._open[-1]
            stage.seconds += now - self._since
            stage.host_bytes, stage.device_bytes = max(stage.host_bytes, host), max(stage.device_bytes, device)
        self._since = now

    @contextmanager
    def call(self, purpose: str, epochs: int | None = None) -> Iterator[Call]:
        """Note a call of the task."""
        call = Call(purpose=purpose, epochs=epochs)
        if self._open:
            self._open[-1].calls.append(call)
        self._calls.append(call)
        began = self.first_batch = self.clock()
        try:
            yield call
        finally:
            call.seconds = self.clock() - began
            # By identity, and not the last: two networks may be looked at in turn.
            self._calls = [other for other in self._calls if other is not call]

    def batches(
        self, batches: Iterable[Batch], whole: int | None, size: int, parts: int, ahead: int
    ) -> Iterator[Batch]:
        """Yield the batches of a step that warms up, and of those that count; see how fast the loader is."""
        noted = Pass(samples=size * parts, whole=None if whole is None else -(-whole // parts))
        began, taken = self.clock(), 0
        if self._calls:
            if not self._calls[-1].passes:
                self.first_batch = began
            self._calls[-1].passes.append(noted)
        source, step = iter(batches), Step(wait=0.0, compute=0.0)
        try:
            while whole is None or taken < (1 + self.steps) * parts:
                asked = self.clock()
                try:
                    batch = next(source)
                except StopIteration:
                    break
                got = self.clock()
                yield batch
                self._synchronise()
                taken += 1
                step.wait, step.compute = step.wait + got - asked, step.compute + self.clock() - got
                if taken % parts == 0:
                    noted.steps.append(step)
                    step = Step(wait=0.0, compute=0.0)
        finally:
            noted.seconds = self.clock() - began
            self._peak.look()  # while the loader's processes are there
        if ahead and whole is not None and whole > taken:
            noted.loaded = self._loaded(source, size, ahead)

    def _loaded(self, source: Iterator[Batch], size: int, ahead: int) -> float | None:
        """Return the samples per second of a loader when nothing waits for them; None where it has too few.

        The batches that may be there already say nothing. The time of it is nobody's.
        """
        began, taken = time.perf_counter(), 0
        counted_from = began
        for _ in source:
            taken += 1
            now = time.perf_counter()
            if taken == ahead:
                counted_from = now
            if taken >= 2 * ahead or (taken > ahead and now - began > _LOADER_SECONDS):
                break
        now = time.perf_counter()
        self._forgotten += now - began
        return size * (taken - ahead) / (now - counted_from) if taken > ahead else None

    def few(self) -> int:
        """Return how many items are worked on."""
        self._asked = self.clock()
        return _ITEMS * (1 + self.steps)

    def worked_on(self, items: int, whole: int) -> None:
        """Note work on items as a pass, a step of which is one of them."""
        if self._calls and items:
            seconds = self.clock() - self._asked
            each = Step(wait=0.0, compute=seconds / items)
            self._calls[-1].passes.append(Pass(samples=1, whole=whole, steps=[each] * items, seconds=seconds))

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
