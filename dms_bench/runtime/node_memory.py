"""What follows when a node runs out of memory: fewer trials at once, and an end to attempts that lead nowhere.

Ray ends processes before the kernel would. Tune takes the end of an actor for a failure of its trial, but gives up the
whole experiment after this one (its `RayActorManager` knows no `OutOfMemoryError`). The driver starts another session.
"""

from __future__ import annotations

from collections import Counter

from dms_bench.errors import TrialFailure
from dms_bench.trial.work import Work


class NodeOutOfMemoryError(Exception):
    """Ray ended processes of trials, as their node ran out of memory."""


class Crowd:
    """The work under way, and how much of it may be under way at once."""

    def __init__(self) -> None:
        #: None: as much as the resources allow.
        self.most: int | None = None
        self._running: dict[str, Work] = {}
        self._over: set[str] = set()
        self._alone = Counter[str]()

    def started(self, work: Work) -> None:
        """Take notice that work has begun."""
        self._running[work.key] = work

    def ended(self, work: Work) -> None:
        """Take notice that work is over."""
        self._running.pop(work.key, None)
        self._over.add(work.key)

    def is_over(self, key: str) -> bool:
        """Tell whether work has ended, well or badly."""
        return key in self._over

    def left(self, works: list[Work]) -> list[Work]:
        """Return the works that are not over."""
        return [work for work in works if not self.is_over(work.key)]

    def thin(self, attempts: int) -> list[Work]:
        """Allow half as much at once as was under way when memory ran out.

        Args:
            attempts: how often work that is under way alone may run out of memory.

        Returns:
            Work that has had its attempts.

        Raises:
            TrialFailure: memory ran out so often while nothing was under way.
        """
        running, self._running = list(self._running.values()), {}
        self.most = max(1, len(running) // 2)
        if len(running) > 1:
            return []
        alone = running[0].key if running else "nothing"
        self._alone[alone] += 1
        if self._alone[alone] < attempts:
            return []
        if not running:
            raise TrialFailure("a node has no memory for any trial; the same command goes on from here")
        return running
