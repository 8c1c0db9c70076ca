"""Weights and descriptions of networks that Ultralytics has trained; code in their files is not run.

Import after `offline.set_up`.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel, torch_safe_load

from dms_bench.errors import UserError
from dms_bench_tasks.common.notes import say_once
from dms_bench_tasks.common.weights import AVERAGES, bare, file_at, give, share, without
from dms_bench_tasks.detection.blocks import split_blocks

#: The branches of a head that tell classes apart; the others say where a box is, whatever is in it.
_OF_CLASSES = ("cv3", "one2one_cv3")


class Described(NamedTuple):
    """What a checkpoint of Ultralytics says of its network."""

    #: The YAML that it was built from, with its size, such as `yolov8n.yaml`; empty where it has none.
    model: str
    #: Names of the classes, by number.
    names: dict[int, str]
    #: Height and width of the images that it was trained with; None where that is not known.
    image_size: int | None


def describe(path: str) -> Described:
    """Return what a checkpoint says of its network.

    Raises:
        UserError: it cannot be loaded, or holds tensors alone, which do not say.
    """
    content = _content(path)
    network = _network(content)
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{path!r} holds tensors alone, which do not say what network they are of: name its YAML (such as "
            "yolov8n.yaml) as the model, and this file as the checkpoint"
        )
    fields = getattr(network, "yaml", None) or {}
    size = content.get("train_args", {}).get("imgsz") if isinstance(content.get("train_args"), dict) else None
    names = getattr(network, "names", None) or {}
    named = dict(enumerate(names)) if isinstance(names, list | tuple) else dict(names)
    return Described(str(fields.get("yaml_file") or ""), named, size if isinstance(size, int) else None)


def load_weights(model: DetectionModel, path: str, *, fresh_head: bool = False) -> None:
    """Load weights by our own names or by Ultralytics', whose cross-stage blocks have one convolution for both halves.

    Args:
        model: the network.
        path: a safetensors file, a weights-only checkpoint of PyTorch, or one that Ultralytics has trained.
        fresh_head: leave the head's branches that tell classes apart as they were drawn; said.

    Raises:
        UserError: it is missing, damaged or belongs to another network, whose tensors are named.
    """
    state = tensors_of(path)
    drawn = names_of_classes(model) if fresh_head else set()
    body = without(state, drawn | {name.removeprefix("model.") for name in drawn})  # of layers alone
    with torch.random.fork_rng(devices=[]):
        whole = DetectionModel(deepcopy(model.yaml), ch=3, nc=model.yaml["nc"], verbose=False)
    try:
        if share(state, whole) > share(state, model):
            give(whole, body, path, drawn)
            split_blocks(whole.model)
            body = without(whole.state_dict(), drawn)
        give(model, body, path, drawn)
    except UserError as error:
        if not fresh_head and detects_others(model, state):
            raise UserError(f"{error}; fresh_head: true draws the head's classes anew, for other ones") from error
        raise
    if fresh_head:
        say_once(f"supernet.checkpoint {path!r}: the head's branches of classes are not taken; they are drawn anew")


def names_of_classes(model: DetectionModel) -> set[str]:
    """Return the names of the tensors in the head's branches that tell classes apart."""
    head = f"model.{len(model.model) - 1}"
    branches = tuple(f"{head}.{branch}." for branch in _OF_CLASSES)
    return {name for name in model.state_dict() if name.startswith(branches)}


def detects_others(model: DetectionModel, state: Mapping[str, Any]) -> bool:
    """Whether tensors that tell classes apart are of another shape in a checkpoint: it knows another number of them."""
    expected = model.state_dict()
    shapes = {name: getattr(tensor, "shape", None) for name, tensor in bare(state, expected).items()}
    return any(name in shapes and shapes[name] != expected[name].shape for name in names_of_classes(model))


def tensors_of(path: str) -> Mapping[str, Any]:
    """Read tensors by name. Raises UserError."""
    content = _content(path)
    network = _network(content)
    named: Mapping[str, Any] = network.float().state_dict() if isinstance(network, nn.Module) else network
    return named


def _network(content: Any) -> Any:
    """Return the network of a checkpoint, or its tensors by name."""
    for key in (*AVERAGES, "model", "state_dict"):
        if content.get(key) is not None:
            return content[key]
    return content


def _content(path: str) -> Any:
    """Read a file; code in it is not run. Raises UserError."""
    from safetensors.torch import load_file

    file = file_at(path)
    try:
        if not file.endswith((".pt", ".pth")):
            tensors: dict[str, Tensor] = load_file(file)
            return tensors
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError:  # Ultralytics keeps whole networks
            return _whole(file)
    except Exception as error:  # a damaged file can raise anything
        reason = " ".join(str(error).replace("ERROR \u274c\ufe0f", "").split())[:300]
        if "outside the supported" in reason:
            reason = (
                "it holds classes that are not Ultralytics' own, whose code is not run: save its tensors alone "
                "(torch.save(model.state_dict(), ...))"
            )
        raise UserError(f"supernet.checkpoint {path!r} cannot be loaded: {reason}") from error


def _whole(file: str) -> Any:
    """Read a checkpoint that holds a network of Ultralytics' own classes, and nothing that is not known."""
    trusted = torch.serialization.get_safe_globals()
    try:
        return torch_safe_load(file, safe_only=True)[0]
    finally:  # it trusts its classes for the rest of the process
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(trusted)
