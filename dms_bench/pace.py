"""Where a rehearsal looks on, and cuts passes over data short. Everywhere else these functions do nothing.

A task hands its batches through `paced` where it loops over them, and the cost meter names its stages by `stage`. The
watch is one of the thread that calls: a trial's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol, TypeVar

Batch = TypeVar("Batch")


class Watch(Protocol):
    """What a rehearsal does with the passes and stages of a trial."""

    def batches(
        self, batches: Iterable[Batch], whole: int | None, size: int, parts: int, ahead: int
    ) -> Iterator[Batch]:
        """Yield the first few batches; arguments as of `paced`."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Return the context of a stage of the trial."""

    def few(self) -> int:
        """Return how many items are to be worked on, where they are no batches."""

    def worked_on(self, items: int, whole: int) -> None:
        """Take notice of work on so many items of a whole, since `few` was asked."""


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


def current() -> Watch | None:
    """Return who looks on; None but in a rehearsal."""
    return _watch.get()


@contextmanager
def watched_by(watch: Watch) -> Iterator[None]:
    """Let `watch` look on at what this thread does inside."""
    before = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(before)


def paced(batches: Iterable[Batch], whole: int | None, *, size: int, parts: int = 1, ahead: int = 0) -> Iterator[Batch]:
    """Return the batches of one pass over data, all of them but in a rehearsal.

    Args:
        batches: of this worker.
        whole: how many there are; None where nobody knows, and all are handed on.
        size: samples of a batch.
        parts: batches of a step.
        ahead: batches that processes of their own may have ready before they are asked for.
    """
    watch = _watch.get()
    return iter(batches) if watch is None else watch.batches(batches, whole, size, parts, ahead)


def stage(name: str) -> AbstractContextManager[None]:
    """Return the context of a stage of a trial."""
    watch = _watch.get()
    return nullcontext() if watch is None else watch.stage(name)
