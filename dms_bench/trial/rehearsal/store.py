"""Where rehearsals are kept: beside a suite's trials, a file for each variant of the suite and each machine."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from pydantic import ValidationError

from dms_bench.trial.rehearsal.record import Rehearsal, Rehearsed
from dms_bench.trial.storage import SuiteFolder, write_atomic

_log = logging.getLogger(__name__)


def save(rehearsal: Rehearsal, folder: SuiteFolder) -> Path:
    """Write a rehearsal, in the place of an earlier one on the same machine, and return its path."""
    named = f"{rehearsal.profile or 'default'}-{rehearsal.machine}"
    path = _folder(folder) / f"{re.sub(r'[^A-Za-z0-9.]+', '-', named).strip('-').lower()}.json"
    write_atomic(path, rehearsal.model_dump_json(indent=1))
    return path


def known(folder: SuiteFolder) -> dict[str, tuple[Rehearsed, Rehearsal]]:
    """Return the newest of what came to its end, by kind, with the rehearsal that it is of."""
    rehearsals = []
    for path in _folder(folder).glob("*.json"):
        try:
            rehearsals.append(Rehearsal.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            _log.warning("%s is no rehearsal of this version: rehearse again", path)
    ordered = sorted(rehearsals, key=lambda rehearsal: rehearsal.date)
    return {kind.key: (kind, each) for each in ordered for kind in each.kinds if kind.failure is None}


def _folder(folder: SuiteFolder) -> Path:
    return folder.path / "rehearsals"
