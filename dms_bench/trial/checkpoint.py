"""Checkpoints of a stage: one file per epoch, its digest in its name, the newest two kept.

Only tensors and plain values are stored and loaded (`weights_only=True`): opening a checkpoint
runs nobody's code.
"""

from __future__ import annotations

import hashlib
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dms_bench.errors import TrialFailure
from dms_bench.trial.storage import write_atomic

_KEPT = 2
_DIGITS = 32
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in one stage's folder."""

    folder: Path

    def files(self) -> list[Path]:
        """Return the checkpoints, newest first."""
        return sorted(self.folder.glob("checkpoint-*.pt"), reverse=True)

    def save(self, epoch: int, state: dict[str, Any]) -> Path:
        """Write the state after `epoch` and drop all but the newest two.

        Raises:
            TypeError: the state holds more than tensors and plain values.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(buffer.getbuffer()))
        if unsafe:
            raise TypeError(f"a checkpoint may hold tensors and plain values only, this one has {', '.join(unsafe)}")
        content = buffer.getvalue()
        path = self.folder / f"checkpoint-{epoch:05d}-{_digest(content)}.pt"
        write_atomic(path, content)
        # A later epoch can only be the damaged file that this attempt fell back from.
        newest = [file for file in self.files() if file.name <= path.name][:_KEPT]
        for file in self.files():
            if file not in newest:
                file.unlink()
        return path

    def load(self, device: torch.device | str = "cpu") -> dict[str, Any] | None:
        """Return the newest undamaged state, or None where nothing was saved.

        Raises:
            TrialFailure: all checkpoints are damaged.
        """
        files = self.files()
        for path in files:
            content = path.read_bytes()
            if _digest(content) == path.stem.rpartition("-")[2]:
                state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
                return state
            _log.warning("checkpoint %s is damaged; going back to the one before", path)
        if files:
            names = " and ".join(str(path) for path in files)
            raise TrialFailure(f"damaged checkpoint: {names}; delete {self.folder} to run this stage again")
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
