"""Giving memory back between the trials of one process."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def give_back_memory() -> None:
    """Collect what a trial has left in cycles, and hand what is free back to the system.

    glibc keeps freed blocks below others that are in use: ten trials later a process holds several times what one trial
    needs (https://man7.org/linux/man-pages/man3/malloc_trim.3.html). Other allocators have no such call.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
