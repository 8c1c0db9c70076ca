"""The weights that a trial starts from, by a hash of what they are: one name may stand for other weights tomorrow."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from dms_bench.config.trial import Trial
from dms_bench.errors import UserError
from dms_bench.trial.storage import digest

_LENGTH = 12


def weights_hash(trial: Trial) -> str | None:
    """Return a hash of the files that the trial's supernet and teachers get their weights from, whatever their names.

    Returns:
        Twelve hexadecimal digits. None where all weights are drawn here, or are those that a library's version
        decides, which is recorded by itself; and where a file is missing, which the one who loads it reports.
    """
    recipes = [recipe for recipe in (trial.pretrain, trial.search, trial.retrain) if recipe is not None]
    try:
        files = trial.task.weight_files(trial.network) if trial.needs_pretrained else []
        files += [path for recipe in recipes for path in recipe.weight_files()]
        digests = [_digest(path, path.stat().st_mtime_ns) for path in files]
    except (OSError, UserError):
        return None
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:_LENGTH] if digests else None


@lru_cache(maxsize=256)
def _digest(path: Path, changed: int) -> str:
    """Read a file once per process: tens of gigabytes take half a minute, and all trials of a suite share them."""
    return digest(path)
