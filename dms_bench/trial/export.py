"""Take a finished trial's network out of the tracking store, and build it again."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dms_bench.errors import UserError
from dms_bench.trial.record import ARCHITECTURE, WEIGHTS, load, task_of

__all__ = ["export", "load"]

if TYPE_CHECKING:
    from dms_bench.tracking.reading import Record

ONNX = "model.onnx"
_log = logging.getLogger(__name__)


def export(uri: str, trial: str, output: Path | str, suite: str | None = None, *, onnx: bool = False) -> list[Path]:
    """Write a trial's network into a folder: `architecture.json` and `weights.safetensors`.

    `load(folder)` builds it from these two files; no pickle is involved. Where the task's own library has a
    form that it opens without dms_bench, the network is written in that, too.

    Args:
        uri: tracking URI.
        trial: the trial's name or hash, or the beginning of one.
        output: folder to write into; made where it is missing.
        suite: look among the trials of this suite only.
        onnx: write `model.onnx` as well, checked against ONNX Runtime.

    Returns:
        The files written.

    Raises:
        UserError: there is no such finished trial, the folder cannot be written, or the
            network cannot be written as ONNX.
    """
    from dms_bench.report.records import read_records
    from dms_bench.report.show import find
    from dms_bench.tracking import connect, names

    record = find(read_records(uri, suite), trial)
    if record.status != names.FINISHED:
        raise UserError(f"trial {record.name} is {record.status}: only a finished one can be exported")
    output = Path(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: {error.strerror or error}") from error
    client = connect(uri)
    files = [_fetched(client, record, name, output) for name in (ARCHITECTURE, WEIGHTS)]
    task = task_of(output)
    files += task.export(load(output), output)
    if onnx:
        from dms_bench.trial.onnx import export_onnx

        files.append(output / ONNX)
        export_onnx(load(output), task.example_input(1), files[-1])
    return files


def _fetched(client: Any, record: Record, name: str, output: Path) -> Path:
    from dms_bench.tracking import shown

    try:
        return Path(client.download_artifacts(record.run_id, name, str(output)))
    except Exception as error:  # of MLflow, its store of artifacts, the disk
        _log.debug("%s of %s", name, record.run_id, exc_info=error)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise UserError(f"{output}: {error.strerror}") from None
        raise UserError(
            f"trial {record.name}: no {name} in {shown(record.artifacts)}; the files of a trial that was imported are "
            "where it was trained"
        ) from None
