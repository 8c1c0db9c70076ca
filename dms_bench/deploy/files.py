"""The files of one network in other runtimes' forms: each written, and checked, once, when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from dms_bench.deploy.accuracy import MOST, Measured, top1
from dms_bench.deploy.int8 import CALIBRATION, MOST_LOST, quantise
from dms_bench.deploy.openvino import convert_int8, export_openvino
from dms_bench.errors import UserError
from dms_bench.inference.onnx import export_onnx
from dms_bench.inference.runtimes import OPENVINO, Predict, eager, need, onnx_runtime, openvino_runtime
from dms_bench.tasks import Labelled, Task

ONNX, OPENVINO_XML = "model.onnx", "model.xml"
INT8, INT8_XML = "model.int8.onnx", "model.int8.xml"


class Files:
    """Where a network's files are written, and what was found of those in eight bits.

    Args:
        model: the network, on the CPU and in eval mode.
        task: its task.
        folder: of the files that are to stay.
        scratch: of those that are only needed on the way.
        kept: names of those that are to stay.
    """

    def __init__(self, model: nn.Module, task: Task, folder: Path, scratch: Path, kept: Collection[str]) -> None:
        self.model, self.task = model, task
        self.example: Tensor = task.example_input(1)
        self._folder, self._scratch, self._kept = folder, scratch, frozenset(kept)
        #: Name of a file that was tried -> why there is none, if there is none.
        self._outcomes: dict[str, UserError | None] = {}
        #: Name of a file in eight bits -> top-1 of the network and of the file, on the validation split.
        self.measured: dict[str, Measured] = {}

    @property
    def onnx(self) -> Path:
        """`model.onnx`, compared with the network. Raises UserError."""
        return self._once(ONNX, lambda path: export_onnx(self.model, self.example, path))

    @property
    def openvino(self) -> Path:
        """`model.xml`, with `model.bin` beside it, compared with the network. Raises UserError."""

        def write(path: Path) -> None:
            need(OPENVINO, "OpenVINO", "openvino")  # before the way over ONNX, which takes long
            export_openvino(self.onnx, path, self.model, self.example)

        return self._once(OPENVINO_XML, write)

    @property
    def int8(self) -> Path:
        """`model.int8.onnx`, its accuracy looked at. Raises UserError."""

        def write(path: Path) -> None:
            calibration = self.calibration  # before anything is written: a task may have no samples
            quantise(self.onnx, calibration, path)
            self._look_at(path, onnx_runtime)

        return self._once(INT8, write)

    @property
    def openvino_int8(self) -> Path:
        """`model.int8.xml`, with `model.int8.bin` beside it, its accuracy looked at. Raises UserError."""

        def write(path: Path) -> None:
            need(OPENVINO, "OpenVINO", "openvino")
            convert_int8(self.int8, path)
            self._look_at(path, openvino_runtime)

        return self._once(INT8_XML, write)

    def _once(self, name: str, write: Callable[[Path], object]) -> Path:
        path = (self._folder if name in self._kept else self._scratch) / name
        if name not in self._outcomes:
            try:
                write(path)
                self._outcomes[name] = None
            except UserError as error:
                self._outcomes[name] = error
        if (refused := self._outcomes[name]) is not None:
            raise refused
        return path

    @cached_property
    def calibration(self) -> list[Tensor]:
        """Batches of the training split's samples, always the same.

        Raises:
            UserError: the task has no samples to calibrate on.
        """
        samples = labelled(self.task).labelled(self.model, "train", CALIBRATION)
        return [inputs for inputs, _ in samples]

    @property
    def calibrated(self) -> int:
        """Number of samples that eight bits are calibrated on."""
        return sum(map(len, self.calibration))

    def _look_at(self, path: Path, opened: Callable[[Path], Predict]) -> None:
        """Measure a file beside the network; remove it where it has lost too much. Raises UserError."""
        samples = labelled(self.task).labelled(self.model, "val", MOST)
        measured = top1([eager(self.model), opened(path)], samples)
        before, after = measured.top1
        if before - after > MOST_LOST:
            for file in {path, path.with_suffix(".bin")} if path.suffix == ".xml" else {path}:
                file.unlink()
            raise UserError(
                f"{path.name} is not written: 8 bits take top-1 from {before:.1f} % to {after:.1f} % of "
                f"{measured.samples} validation samples"
            )
        self.measured[path.name] = measured


def labelled(task: Task) -> Labelled:
    """Return a task that has samples with labels. Raises UserError for another."""
    if not isinstance(task, Labelled):
        raise UserError("--int8 and --compare are for networks that classify: this task has no samples with labels")
    return task


def size_of(path: Path) -> int:
    """Return the bytes of a file, with those of the weights beside it where it is OpenVINO's."""
    return path.stat().st_size + (path.with_suffix(".bin").stat().st_size if path.suffix == ".xml" else 0)
