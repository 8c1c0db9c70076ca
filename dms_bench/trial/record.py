"""A network on disk: what it is (JSON) and its weights (safetensors).

Rebuilding runs no pickle and traces nothing: the supernet is built by name, and its structure changed
as the record says.
"""

from __future__ import annotations

import dataclasses
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from dms_bench.config.plugins import TASKS, parse_plugin
from dms_bench.config.supernet import parse_supernet
from dms_bench.config.task import TaskSpec
from dms_bench.config.trial import Trial
from dms_bench.errors import TrialFailure, UserError
from dms_bench.scaling import Architecture, SearchSpace, Surgery, apply_structure
from dms_bench.tasks import Task, make_task
from dms_bench.trial.repair_report import RepairReport
from dms_bench.trial.spaces import untrained
from dms_bench.trial.storage import write_atomic

FORMAT = 2
ARCHITECTURE, WEIGHTS = "architecture.json", "weights.safetensors"
_SURGERY = TypeAdapter(Surgery)
_CHANGES = {field.name for field in dataclasses.fields(Surgery)}


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's parameters and buffers; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    save_model(model, str(unfinished))
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load parameters and buffers into `model`, which must have exactly those.

    Raises:
        TrialFailure: the file is damaged or belongs to another network.
    """
    try:
        load_model(model, str(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise TrialFailure(f"{path}: not this network's weights: {' '.join(str(error).split())[:300]}") from error


def describe(
    trial: Trial,
    task: TaskSpec,
    space: SearchSpace,
    architecture: Architecture,
    surgery: Surgery,
    counter: str,
    repair: RepairReport | None = None,
) -> dict[str, Any]:
    """Return all that is needed to build the network again, and how much of each group was kept.

    Args:
        trial: where it comes from.
        task: as the network was trained on it.
        space: the supernet's search space.
        architecture: what was kept of the supernet.
        surgery: how that changes the supernet's modules.
        counter: name and version of what counted its MACs and parameters.
        repair: what the repair came to, where there was one.
    """
    if repair is not None:
        surgery = dataclasses.replace(surgery, biases=repair.biases)
    return {
        "format": FORMAT,
        "trial": trial.hash,
        "task": task.model_dump(mode="json"),
        "supernet": trial.network.model_dump(mode="json"),
        "architecture": json.loads(architecture.to_json()),
        "surgery": _SURGERY.dump_python(surgery, mode="json"),
        "sizes": {name: list(sizes) for name, sizes in space.sizes_of(architecture).items()},
        "steps": {group.name: group.step for group in space.groups if group.step > 1},
        "counter": counter,
        **({} if repair is None else {"repair": repair.model_dump(mode="json")}),
        "versions": {name: version(name) for name in ("dms-bench", "torch", *trial.task.libraries)},
    }


def write_description(path: Path, description: dict[str, Any]) -> None:
    """Write what `describe` returned."""
    write_atomic(path, json.dumps(description, indent=1))


def load(folder: Path | str) -> nn.Module:
    """Build the network that `folder` holds (`architecture.json` and `weights.safetensors`).

    Returns:
        The network on the CPU, in eval mode.

    Raises:
        UserError: the files are missing, damaged or of another format, or the supernet cannot be built.
    """
    folder = Path(folder)
    path = folder / ARCHITECTURE
    try:
        description = json.loads(path.read_text())
        form = description["format"]
    except FileNotFoundError:
        raise UserError(f"{folder}: no exported network there ({ARCHITECTURE} is missing)") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an exported network: {error}") from error
    if form != FORMAT:
        raise UserError(f"{path}: format {form!r}; this version reads format {FORMAT}")
    try:
        model = build(description)
        load_weights(model, folder / WEIGHTS)
    except (ValueError, KeyError, TypeError, AttributeError, TrialFailure) as error:
        raise UserError(f"{folder}: cannot be built again: {' '.join(str(error).split())[:300]}") from error
    return model.eval()


def task_of(folder: Path) -> Task:
    """Return the task of the network that `load` has built from `folder`."""
    spec = cast(TaskSpec, parse_plugin(TASKS, json.loads((folder / ARCHITECTURE).read_text())["task"]))
    return make_task(spec, 0)


def build(description: dict[str, Any]) -> nn.Module:
    """Build a described network; its weights are random, or empty where they are not the supernet's size."""
    spec = cast(TaskSpec, parse_plugin(TASKS, description["task"]))
    supernet = untrained(parse_supernet(description["supernet"]))
    unknown = [name for name, value in description["surgery"].items() if value and name not in _CHANGES]
    if unknown:
        raise ValueError(f"surgery: {', '.join(unknown)}: of another version of dms_bench")
    surgery = _SURGERY.validate_python(description["surgery"])
    model = make_task(spec, 0).build(supernet)
    apply_structure(model, surgery)
    return model
