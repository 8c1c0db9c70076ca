"""Weights out of a file, given to a network by the names of its tensors: all of them fit, or none are taken."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dms_bench.data import advice
from dms_bench.errors import UserError
from dms_bench_tasks.common.notes import say_once

#: What wrappers put before the names of a network's tensors: data parallelism, `torch.compile`, a trainer's module.
PREFIXES = ("module.", "_orig_mod.", "base_model.", "model.", "network.")

#: Where trainers keep averaged weights, and where weights, in the order in which they are looked for: timm's,
#: Lightning's, others'.
AVERAGES = ("state_dict_ema", "model_ema", "ema")
STATES = (*AVERAGES, "state_dict", "model", "module")
#: How deep in one another such mappings lie at most; a damaged file may hold itself.
_DEEPEST = 8


def file_at(path: str) -> str:
    """Return the path of a checkpoint, of which `~` is the home folder. Raises UserError where there is no file."""
    file = Path(path).expanduser()
    if file.is_dir():
        names = sorted(entry.name for entry in file.iterdir() if entry.is_file())[:5]
        inside = f"the file in it ({', '.join(names)})" if names else "a file"
        raise UserError(f"supernet.checkpoint {path!r} is a folder: name {inside}")
    if not file.is_file():
        raise UserError(f"supernet.checkpoint {path!r} does not exist{advice(path)}")
    return str(file)


def read(path: str) -> dict[str, Any]:
    """Return the tensors of a file by name: of safetensors, or of a checkpoint of PyTorch, whose code is not run.

    Of a trainer's checkpoint they are those of the averaged weights, where it has some, which is said.

    Raises:
        UserError: it is missing, damaged, or holds more than tensors and plain values.
    """
    file, named = file_at(path), f"supernet.checkpoint {path!r}"
    try:
        if not os.path.getsize(file):
            raise UserError(f"{named} is empty")
        if file.lower().endswith(".safetensors"):
            tensors: dict[str, Any] = load_file(file)
            return tensors
        with warnings.catch_warnings(action="ignore"):  # what is wrong is said below
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise anything
        why = _first_line(error)
        if isinstance(error, UnpicklingError) and (found := re.search(r"GLOBAL ([\w.]+)", str(error))):
            why = f"it holds a {found[1]} beside tensors, whose code is not run: save its tensors alone (a state dict)"
        elif isinstance(error, UnpicklingError | EOFError | KeyError):
            why = "it is no checkpoint of PyTorch (or of an old form; save its tensors anew)"
        raise UserError(f"{named} cannot be loaded: {why}") from error
    for _ in range(_DEEPEST):
        if not isinstance(content, dict):
            break
        key = next((key for key in STATES if isinstance(content.get(key), dict) and content[key]), None)
        if key is None:
            return {name: value for name, value in content.items() if isinstance(name, str)}
        if key in AVERAGES:
            say_once(f"{named}: the averaged weights are taken ({key!r})")
        content = content[key]
    raise UserError(f"{named} holds no tensors by name, but a {type(content).__name__}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def give(
    model: nn.Module,
    state: Mapping[str, Any],
    path: str,
    shared: Collection[str] = (),
    adapted: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({}),
) -> None:
    """Load all tensors of a network, in place.

    A prefix of a known wrapper, before the names or missing before all of them, is put right and said.

    Args:
        model: the network; where it is refused, some of its weights may have changed.
        state: tensors by name.
        path: where they are from.
        shared: names of tensors that are others' as well, and need not be there.
        adapted: what makes a tensor of some name fit that has another shape; where it can, that is said.

    Raises:
        UserError: tensors are missing, unknown or of another shape; the message names them.
    """
    named = f"supernet.checkpoint {path!r}"
    expected = model.state_dict()
    tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise UserError(f"{named} holds no tensors by name, but {', '.join(map(repr, list(state)[:5])) or 'nothing'}")
    change, tensors = _best(tensors, expected)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    made = {
        name: change_shape(tensors[name])
        for name, change_shape in adapted.items()
        if name in tensors and name in expected and tensors[name].shape != expected[name].shape
    }
    tensors |= made
    other = [name for name, tensor in tensors.items() if name in expected and tensor.shape != expected[name].shape]
    wild = [name for name, tensor in tensors.items() if name in expected and not _is_finite(tensor)]
    unusable = {*other, *wild}
    # PyTorch itself knows which tensors an older network may lack.
    missing, unknown = model.load_state_dict(
        {name: tensor for name, tensor in tensors.items() if name not in unusable}, strict=False
    )
    wrong = [
        _first("lacks {!r}", [name for name in missing if name not in {*unusable, *shared}]),
        _first("has unknown {!r}", unknown),
        _first("has another shape of {!r}", other),
    ]
    if other:
        found, needed = (list(where[other[0]].shape) for where in (tensors, expected))
        wrong.append(f"which is {found}, and {needed} in the network")
    wrong.append(_first("holds numbers that are complex, infinite or none in {!r}", wild))
    if any(wrong):
        what = "cannot be used" if wild and not any(wrong[:-1]) else "is of another network"
        raise UserError(f"{named} {what}: it {', '.join(filter(None, wrong))}")
    if change:
        say_once(f"{named}: {change}")
    for name in made:
        say_once(f"{named}: {name!r} is adapted to {list(expected[name].shape)}, from {shapes[name]}")


def _is_finite(tensor: Any) -> bool:
    if not torch.is_tensor(tensor):
        return True  # named by the loading
    return not tensor.is_complex() and (not tensor.is_floating_point() or bool(tensor.isfinite().all()))


def without(state: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return tensors by name, but for those of some names, whatever wrappers have put before them."""

    def bare(name: str) -> str:
        while name not in names and (prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")):
            name = name.removeprefix(prefix)
        return name

    return {name: tensor for name, tensor in state.items() if bare(name) not in names}


def share(state: Mapping[str, Any], model: nn.Module) -> float:
    """Return the share of a network's tensors that are there by name, prefixes of wrappers aside."""
    expected = model.state_dict()
    return _overlap(_best(state, expected)[1], expected) / max(1, len(expected))


def bare(state: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return tensors by the names that a network has for them, as far as wrappers' prefixes tell."""
    return _best(state, expected)[1]


def _best(tensors: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the names that fit best, and what was changed of them; as they are where nothing fits better."""
    return max(_variants(tensors), key=lambda variant: _overlap(variant[1], expected))  # the first of equals


def _variants(tensors: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", dict(tensors)
    for prefix in PREFIXES:
        yield f"{prefix!r} is put before its names", {f"{prefix}{name}": value for name, value in tensors.items()}
    left_out, names = "", dict(tensors)
    while prefix := next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in names)), ""):
        # A trainer's module may have tensors beside the network, such as weights of a loss: these are named later.
        names = {name.removeprefix(prefix): value for name, value in names.items()}
        left_out += prefix
        yield f"its names begin with {left_out!r}, which is left out", names


def _overlap(tensors: Mapping[str, Any], expected: Mapping[str, Any]) -> int:
    return len(tensors.keys() & expected.keys())


def _first(text: str, names: list[str]) -> str:
    if not names:
        return ""
    return text.format(names[0]) + (f" ({len(names)} in all)" if len(names) > 1 else "")
