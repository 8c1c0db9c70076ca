"""Where rehearsals are kept: beside a suite's trials, a file for each variant of the suite and each machine."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from pydantic import ValidationError

from dms_bench.trial.rehearsal.record import Rehearsal, Rehearsed
from dms_bench.trial.storage import SuiteFolder, write_atomic

_log = logging.getLogger(__name__)


def save(rehearsal: Rehearsal, folder: SuiteFolder) -> None:
    """Write a rehearsal; kinds that an earlier one on the same machine has had besides are kept."""
    named = f"{rehearsal.profile or 'default'}-{rehearsal.machine}"
    path = _folder(folder) / f"{re.sub(r'[^A-Za-z0-9.]+', '-', named).strip('-').lower()}.json"
    before, new = _read(path), {kind.key for kind in rehearsal.kinds}
    others = [kind for kind in before.kinds if kind.key not in new] if before is not None else []
    write_atomic(path, rehearsal.model_copy(update={"kinds": [*others, *rehearsal.kinds]}).model_dump_json(indent=1))


def known(folder: SuiteFolder) -> dict[str, tuple[Rehearsed, str]]:
    """Return the newest of what came to its end, by kind, with the machine that it was rehearsed on."""
    rehearsals = [each for path in _folder(folder).glob("*.json") if (each := _read(path)) is not None]
    found = [(kind, each.machine) for each in rehearsals for kind in each.kinds if kind.failure is None]
    return {kind.key: (kind, machine) for kind, machine in sorted(found, key=lambda one: one[0].date)}


def _read(path: Path) -> Rehearsal | None:
    try:
        return Rehearsal.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        _log.warning("%s is no rehearsal of this version: rehearse again", path)
        return None


def _folder(folder: SuiteFolder) -> Path:
    return folder.path / "rehearsals"
