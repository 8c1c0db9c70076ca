"""Hooks on modules for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Take hooks off their modules afterwards, also after an error.

    Args:
        handles: what registering them returned.
    """
    handles = list(handles)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
