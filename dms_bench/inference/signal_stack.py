"""The stack on which a thread's signal handlers run, kept while a library puts one of its own in its place."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """`stack_t` of Linux, as `man sigaltstack` gives it; other systems order its fields in other ways."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> SignalStack:
    """Return the alternate signal stack of the calling thread."""
    stack = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give the calling thread its own signal stack back at the end.

    OpenVINO (2026.4) leaves another one when it compiles a network, and frees it some time later. Python's handlers run
    on whatever stack is set, so the next signal ends the process with a segmentation fault: SIGCHLD, for one, which
    PyTorch's data loaders handle, at the first child that exits.
    """
    if sys.platform != "linux":
        yield
        return
    stack = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None)
