"""Take a finished trial's network out of the tracking store, and build it again."""

from __future__ import annotations

from pathlib import Path

from dms_bench.errors import UserError
from dms_bench.trial.record import ARCHITECTURE, WEIGHTS, load, task_of

__all__ = ["export", "load"]

ONNX = "model.onnx"


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
        client = connect(uri)
        files = [Path(client.download_artifacts(record.run_id, name, str(output))) for name in (ARCHITECTURE, WEIGHTS)]
    except OSError as error:
        raise UserError(f"{output}: {error.strerror or error}") from error
    task = task_of(output)
    files += task.export(load(output), output)
    if onnx:
        from dms_bench.trial.onnx import export_onnx

        files.append(output / ONNX)
        export_onnx(load(output), task.example_input(1), files[-1])
    return files
