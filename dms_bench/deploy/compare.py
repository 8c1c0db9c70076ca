"""One network in six forms: single precision and eight bits, in PyTorch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from torch import Tensor, nn

from dms_bench.deploy.accuracy import MOST, top1
from dms_bench.deploy.eager_int8 import quantised
from dms_bench.deploy.files import Files, labelled, size_of
from dms_bench.errors import UserError
from dms_bench.inference.runtimes import Predict, eager, onnx_runtime, openvino_runtime
from dms_bench.inference.timing import medians, ratios, rounds
from dms_bench.tasks import Task
from dms_bench.tracking.environment import cpu_name


@dataclass(frozen=True)
class Row:
    """A network in one precision and runtime."""

    precision: str
    runtime: str
    #: In percent, of the test split's samples.
    top1: float | None = None
    #: Median for one sample on one thread.
    latency_ms: float | None = None
    #: Median over rounds of the latency against PyTorch's in single precision.
    ratio: float | None = None
    #: Bytes of the file or files.
    size: int | None = None
    #: Why there are no figures, or what these are of.
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """All rows, and what they were measured on."""

    rows: tuple[Row, ...]
    #: Samples of the test split.
    pictures: int
    #: Training samples that eight bits were calibrated on.
    calibration: int
    rounds: int
    #: Name of the processor.
    device: str
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Form:
    """A file, opened: as it is for any number of samples, and as it is timed."""

    predict: Predict
    timed: Predict
    size: int
    note: str = ""


def compare(model: nn.Module, task: Task, files: Files, weights: Path) -> Comparison:
    """Write what is missing of a network's files, measure them all, and say why where there is none.

    Args:
        model: the network, on the CPU and in eval mode.
        task: its task, which must hand out samples with their labels.
        files: of the network.
        weights: its weights as PyTorch reads them.

    Raises:
        UserError: the task does not.
    """
    samples = labelled(task).labelled(model, "test", MOST)
    example = task.example_input(1)

    wanted: dict[tuple[str, str], Callable[[], _Form]] = {
        ("fp32", "PyTorch"): lambda: _Form(eager(model), eager(model), weights.stat().st_size),
        ("fp32", "ONNX Runtime"): lambda: _onnx(files.onnx),
        ("fp32", "OpenVINO"): lambda: _openvino(files.openvino, example),
        ("int8", "PyTorch"): lambda: _pytorch_int8(model, files.calibration, example),
        ("int8", "ONNX Runtime"): lambda: _onnx(files.int8),
        ("int8", "OpenVINO"): lambda: _openvino(files.openvino_int8, example),
    }
    forms: dict[tuple[str, str], _Form] = {}
    refused: dict[tuple[str, str], str] = {}
    for key, form in wanted.items():
        try:
            forms[key] = form()
        except UserError as error:
            refused[key] = str(error)
    measured = top1([form.predict for form in forms.values()], samples)
    spent = rounds([form.timed for form in forms.values()], example)
    figures = dict(zip(forms, zip(measured.top1, medians(spent), ratios(spent), strict=True), strict=True))
    rows = tuple(
        Row(*key, *figures[key], forms[key].size, forms[key].note) if key in forms else Row(*key, note=refused[key])
        for key in wanted
    )
    return Comparison(rows, measured.samples, files.calibrated, len(spent), cpu_name(), _versions())


def _pytorch_int8(model: nn.Module, samples: Iterable[Tensor], example: Tensor) -> _Form:
    small, size = quantised(model, samples, example)
    return _Form(eager(small), eager(small), size, "torch.ao; in memory, no file")


def _onnx(path: Path) -> _Form:
    predict = onnx_runtime(path)
    return _Form(predict, predict, size_of(path))


def _openvino(path: Path, example: Tensor) -> _Form:
    return _Form(openvino_runtime(path), openvino_runtime(path, example.shape), size_of(path))


def _versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "onnxruntime", "openvino"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
