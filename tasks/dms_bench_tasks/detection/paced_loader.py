"""A loader of Ultralytics over which a rehearsal looks on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dms_bench.pace import paced

#: Batches that a process of a loader has ready at most, as Ultralytics asks for.
_EACH_AHEAD = 4


class PacedLoader:
    """The loader itself, but for its passes.

    Args:
        loader: as Ultralytics builds it.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        ahead = _EACH_AHEAD * self._loader.num_workers
        return paced(self._loader, len(self._loader), size=self._loader.batch_size, ahead=ahead)
