"""Take a finished trial's network out of the tracking store, and write it for whoever wants to run it."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dms_bench.deploy.card import CARD, Written, write_card
from dms_bench.deploy.compare import Comparison, compare
from dms_bench.deploy.files import INT8, INT8_XML, ONNX, OPENVINO_XML, Files, labelled
from dms_bench.deploy.program import write_program
from dms_bench.errors import UserError
from dms_bench.inference import runtimes
from dms_bench.inference.runtimes import need
from dms_bench.tasks import Deployed
from dms_bench.trial.record import ARCHITECTURE, WEIGHTS, load, task_of

if TYPE_CHECKING:
    from dms_bench.tracking.reading import Record

PROGRAM = "model.pt2"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Forms:
    """What a network is written as, beside the files that every export has."""

    onnx: bool = False
    openvino: bool = False
    int8: bool = False
    #: Write all of these that there can be, and measure them.
    compare: bool = False

    @property
    def names(self) -> frozenset[str]:
        """Names of the files that are to stay."""
        chosen = {
            ONNX: self.onnx or self.compare,
            OPENVINO_XML: self.openvino or self.compare,
            INT8: self.int8 or self.compare,
            INT8_XML: (self.int8 and self.openvino) or self.compare,
        }
        return frozenset(name for name, wanted in chosen.items() if wanted)


@dataclass(frozen=True)
class Exported:
    """What an export has written, what it could not and why, and how the forms compare where that was asked."""

    files: list[Written]
    notes: list[str]
    comparison: Comparison | None


def export(
    uri: str, trial: str, output: Path | str, suite: str | None = None, *, forms: Forms | None = None
) -> Exported:
    """Write a trial's network into a folder: `architecture.json`, `weights.safetensors`, `model.pt2`, `README.md`.

    `load(folder)` builds it from the first two; no pickle is involved. The third is a program of torch.export, which
    torch opens without dms_bench. Where the task's own library has a form of its own, the network is written in that,
    too. Each form is opened again and compared with the network before it counts as written.

    Args:
        uri: tracking URI.
        trial: the trial's name or hash, or the beginning of one.
        output: folder to write into; made where it is missing.
        suite: look among the trials of this suite only.
        forms: what else to write.

    Raises:
        UserError: there is no such finished trial, the folder cannot be written, or the network cannot be written in
            a form that was asked for.
    """
    from dms_bench.report.records import read_records
    from dms_bench.report.show import find
    from dms_bench.tracking import connect, names

    forms = forms or Forms()
    _check_installed(forms)
    record = find(read_records(uri, suite), trial)
    if record.status != names.FINISHED:
        raise UserError(f"trial {record.name} is {record.status}: only a finished one can be exported")
    if not str(output).strip():
        raise UserError("--output '': name a folder to write into")
    output = Path(output)
    if (output / CARD).exists() and not (output / ARCHITECTURE).exists():
        raise UserError(f"{output / CARD} is there already and is none of an export: name another folder to write into")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: {error.strerror or error}") from error
    client = connect(uri)
    written = [Written(_fetched(client, record, name, output)) for name in (ARCHITECTURE, WEIGHTS)]
    task = task_of(output)
    if forms.int8 or forms.compare:
        labelled(task)
    written += [Written(path) for path in task.export(load(output), output)]
    model = task.deployed(load(output)) if isinstance(task, Deployed) else load(output)
    notes: list[str] = []
    try:
        batch = write_program(model, task.example_input(1), output / PROGRAM)
        written.append(Written(output / PROGRAM, "" if batch is None else f"for {batch} samples at a time"))
    except UserError as error:  # nobody has asked for it
        notes.append(f"no {PROGRAM}: {error}")
    comparison = None
    with TemporaryDirectory() as scratch:
        files = Files(model, task, output, Path(scratch), forms.names)
        if forms.compare:
            comparison = compare(model, task, files, output / WEIGHTS)
        written += _written(files, forms)
    description = json.loads((output / ARCHITECTURE).read_text())
    card = write_card(output / CARD, record, task, model, written, comparison, description)
    return Exported([*written, Written(card)], notes, comparison)


def _check_installed(forms: Forms) -> None:
    """Refuse, before anything is written, what needs packages that are missing. Raises UserError."""
    if forms.onnx or forms.openvino or forms.int8:
        need(runtimes.ONNX, "ONNX", "onnx")
    if forms.openvino:
        need(runtimes.OPENVINO, "OpenVINO", "openvino")


def _written(files: Files, forms: Forms) -> Iterator[Written]:
    """Write what was asked for, or list what a comparison has written of it."""
    for name in (ONNX, OPENVINO_XML, INT8, INT8_XML):
        if name not in forms.names:
            continue
        try:
            yield from _form(files, name)
        except UserError:
            if not forms.compare:  # which says it in its row
                raise


def _form(files: Files, name: str) -> Iterator[Written]:
    if name == ONNX:
        yield Written(files.onnx)
    elif name == OPENVINO_XML:
        yield from (Written(files.openvino), Written(files.openvino.with_suffix(".bin")))
    elif name == INT8:
        yield Written(files.int8, _said(files, name))
    else:
        xml = files.openvino_int8
        yield from (Written(xml, _said(files, name)), Written(xml.with_suffix(".bin")))


def _said(files: Files, name: str) -> str:
    measured = files.measured[name]
    before, after = measured.top1
    return (
        f"top-1 {after:.1f} % of {measured.samples} validation samples, {before:.1f} % in single precision; "
        f"calibrated with {files.calibrated} training samples"
    )


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
