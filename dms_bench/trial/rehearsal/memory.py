"""The most memory that a process has held, that of its loaders' processes included, since it was last asked."""

from __future__ import annotations

import os
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")
#: What resets the mark of the most memory (proc(5)); Linux alone has it.
_RESET = "5"


class Peak:
    """The marks of the most memory, on the host and on an accelerator."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._children = 0
        self.taken()

    def look(self) -> None:
        """Look at the processes that load data, which are not there all the time."""
        self._children = max(self._children, _of_children(os.getpid()))

    def taken(self) -> tuple[int, int]:
        """Return the bytes on the host and on the accelerator, and begin anew."""
        host, self._children = _most() + self._children, 0
        device = 0
        if self._device.type == "cuda":
            device = torch.cuda.max_memory_reserved(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        with suppress(OSError):
            (_PROCESS / "clear_refs").write_text(_RESET)
        return host, device


def _most() -> int:
    """Return the most that this process has held at once; where no mark can be reset, since it began."""
    most = _field(_PROCESS / "status", "VmHWM")
    if most is not None:
        return most
    since_it_began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return since_it_began if sys.platform == "darwin" else since_it_began * 1024


def _of_children(process: int) -> int:
    """Return what the processes below one hold for themselves: pages that they share count in part."""
    total = 0
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in thread.read_text().split():
                total += (_field(Path(f"/proc/{child}/smaps_rollup"), "Pss") or 0) + _of_children(int(child))
    return total


def _field(path: Path, name: str) -> int | None:
    """Return a size that the system tells of a process, in bytes; None where it does not."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
