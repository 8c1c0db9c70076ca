"""The card of an exported network: what it is, what it measures, where it comes from, and how to open each file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.config.task import Unit
from dms_bench.deploy.compare import Comparison
from dms_bench.deploy.table import render
from dms_bench.errors import UserError
from dms_bench.report import format as fmt
from dms_bench.report.records import Record
from dms_bench.report.render import markdown_line, markdown_text
from dms_bench.tasks import Described, Task
from dms_bench.tracking import names

CARD = "README.md"

#: File -> what it is and how it is opened.
_OPENED = {
    "architecture.json": "what was kept of which network; with the weights: `import dms_bench; dms_bench.load(FOLDER)`",
    "weights.safetensors": "its parameters and buffers, in single precision",
    "model.pt2": 'needs torch alone: `torch.export.load("model.pt2").module()(inputs)`',
    "model.onnx": '`session = onnxruntime.InferenceSession("model.onnx")`, '
    "`session.run(None, {session.get_inputs()[0].name: inputs})`",
    "model.xml": 'OpenVINO: `openvino.Core().compile_model("model.xml", "CPU")(inputs)`; of one sample it is faster '
    "after `read_model` and `reshape` to that",
    "model.bin": "the weights of `model.xml`",
    "model.int8.onnx": "as `model.onnx`, in 8 bits (QuantizeLinear, DequantizeLinear; weights by channel)",
    "model.int8.xml": "as `model.xml`, in 8 bits",
    "model.int8.bin": "the weights of `model.int8.xml`",
    "best.pt": '`ultralytics.YOLO("best.pt")`',
    "train.py": "trains `best.pt` on, with Ultralytics alone",
    "transformers": '`AutoModelForCausalLM.from_pretrained("transformers")`, with `trust_remote_code=True` where '
    "`modeling_cut.py` is in it",
}


@dataclass(frozen=True)
class Written:
    """A file or folder, and what is to be said of it."""

    path: Path
    about: str = ""


def write_card(
    path: Path,
    record: Record,
    task: Task,
    model: nn.Module,
    files: Sequence[Written],
    comparison: Comparison | None,
    description: Mapping[str, Any],
) -> Path:
    """Write the card.

    Args:
        path: file to write.
        record: the trial.
        task: its task.
        model: the network as its files have it.
        files: all that was written.
        comparison: of its forms, where there is one.
        description: what `architecture.json` says of it.

    Returns:
        The file.

    Raises:
        UserError: it cannot be written.
    """
    parts = [
        f"# {record.name}",
        _summary(record),
        "## Numbers",
        _table(("", ""), _numbers(record)),
        "## Inputs and outputs",
        _table(("", ""), _ends(task, model)),
        "## Files",
        _table(("file", "what it is, how it is opened"), [(f"`{file.path.name}`", _about(file)) for file in files]),
    ]
    if comparison is not None:
        parts += ["## In other runtimes", str(render(comparison, "markdown"))]
    parts += [
        "## Where it comes from",
        _table(("", ""), _origin(record)),
        "## Data",
        "```json\n" + json.dumps(description["task"]["data"], indent=1) + "\n```",
        "## Licences",
        _licences(description["versions"]),
    ]
    try:
        path.write_text("\n\n".join(part.rstrip("\n") for part in parts) + "\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    return path


def _summary(record: Record) -> str:
    tags = record.tags
    method = tags.get(names.METHOD_LABEL, tags[names.METHOD])
    return (
        f"`{tags[names.MODEL]}`, cut by *{markdown_text(method)}* to a budget of {markdown_text(tags[names.BUDGET])} "
        f"({markdown_text(tags[names.PIPELINE])}), for {tags[names.TASK]}. Made by dms_bench."
    )


def _numbers(record: Record) -> list[tuple[str, str]]:
    metrics = record.metrics
    found = []
    for name, value in sorted(metrics.items()):
        if (measure := name.removeprefix("test/")) != name:
            unit = Unit(decimals=0) if measure == "n" else record.unit(measure)
            found.append((f"{fmt.heading(measure, unit.symbol)}, test", fmt.measure(value, None, unit.decimals)))
    if record.validation is not None:
        metric = record.tags[names.METRIC]
        unit = record.unit(metric)
        shown = fmt.measure(record.validation, None, unit.decimals)
        found.append((f"{fmt.heading(metric, unit.symbol)}, validation", shown))
    for name in ("macs", "params"):
        if name in metrics and f"supernet_{name}" in metrics:
            whole = metrics[f"supernet_{name}"]
            share = f"{metrics[name] / whole:.1%} of the supernet's {fmt.count(whole)}"
            found.append((name, f"{fmt.count(metrics[name])}, {share}"))
    if "latency_ms" in metrics:
        found.append(("latency where it was trained", fmt.milliseconds(metrics["latency_ms"])))
    return found


def _ends(task: Task, model: nn.Module) -> list[tuple[str, str]]:
    """Say what goes in and out: in the task's words, or by type and size."""
    if isinstance(task, Described):
        takes, gives = task.inputs_and_outputs(model)
        return [("input", takes), ("output", gives)]
    example = task.example_input(2)
    with torch.no_grad():
        outputs = model(example)
    gives = _form(outputs) if isinstance(outputs, Tensor) else type(outputs).__name__
    return [("input", _form(example)), ("output", gives)]


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} [{', '.join(['batch', *map(str, tensor.shape[1:])])}]"


def _about(file: Written) -> str:
    return "; ".join(filter(None, (_OPENED.get(file.path.name, ""), file.about)))


def _origin(record: Record) -> list[tuple[str, str]]:
    tags, environment = record.tags, record.environment
    entries = {
        "suite": record.edition,
        "trial": record.hash,
        "model": tags[names.MODEL],
        "method": tags.get(names.METHOD_LABEL, tags[names.METHOD]),
        "pipeline": tags[names.PIPELINE],
        "budget": tags[names.BUDGET],
        "seed": tags[names.SEED],
        "commit": environment.get("git_commit", "not known"),
        "trained": time.strftime("%Y-%m-%d", time.gmtime(record.start / 1000)),
        "processor": environment.get("cpu", "not known"),
    }
    libraries = [name for name in ("gpus", "torch", "timm", "ultralytics", "transformers") if name in environment]
    entries |= {name: environment[name] for name in libraries}
    return [(name, markdown_text(value)) for name, value in entries.items()]


def _licences(packages: Iterable[str]) -> str:
    """Say the licences of the code, by what the packages say of themselves, and what that leaves open."""
    lines = [f"- {package}: {_licence(package)}" for package in packages]
    lines.append(
        "- The weights come from the data above, and from a checkpoint where the trial began with one: their terms "
        "hold for the weights, and no licence of code grants more."
    )
    return "\n".join(lines)


def _licence(package: str) -> str:
    try:
        said = metadata(package)
    except PackageNotFoundError:
        return "not installed here"
    named = said.get_all("License-Expression") or said.get_all("License") or ["not said"]
    return str(named[0]).splitlines()[0]


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(map(markdown_line, (headings, ["---"] * len(headings), *rows)))
