"""No number from a wrong kernel: the layers of a network that was cut are checked before it is trained.

What was found right is noted in `$XDG_CACHE_HOME/dms_bench/kernels`, a file for each machine (processor, instruction
set, PyTorch, threads) with a line for each layer and for each whole network, so that a second look takes milliseconds.
Wrong layers are not noted: they are checked again, and may be right after an update.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dms_bench.errors import TrialFailure
from dms_bench.kernels.check import wrong
from dms_bench.kernels.record import layers_of
from dms_bench.tracking.environment import cpu_name
from dms_bench.trial.group import WorkerGroup

#: Wrong layers that a failure names.
_NAMED = 3
_log = logging.getLogger(__name__)


def require_right(network: nn.Module, example: Tensor, group: WorkerGroup, *, bf16: bool = False) -> None:
    """Make sure that this machine computes a network's layers and their gradients right; every worker calls this.

    Args:
        network: on the CPU.
        example: its input.
        group: this process's place, and the device that the network will be trained on.
        bf16: it will be trained in bfloat16, too.

    Raises:
        TrialFailure: some layers are wrong, on this worker or another.
    """
    problem = next(filter(None, group.gathered(_problem(network, example, group.device, bf16))), "")
    if problem:
        raise TrialFailure(problem)


def _problem(network: nn.Module, example: Tensor, device: torch.device, bf16: bool) -> str:
    known = _Known(device)
    network_key = _key(_described(network, example, bf16))
    if network_key in known.right:
        return ""
    layers = {}
    for case, name in layers_of(network, example).items():
        placed = replace(case, device=device.type)
        layers[placed] = name
        if bf16:
            layers[replace(placed, dtype="bfloat16")] = name
    keys = {case: _key(repr(case)) for case in layers}
    wrong_layers = {case: errors for case in layers if keys[case] not in known.right and (errors := wrong(case))}
    known.add(key for case, key in keys.items() if case not in wrong_layers)
    if not wrong_layers:
        known.add([network_key])
        return ""
    listed = "; ".join(
        f"layer {layers[case] or 'of the network'} ({case}): "
        + ", ".join(f"{part} off by {error:.2g}" for part, error in errors.items())
        for case, errors in list(wrong_layers.items())[:_NAMED]
    )
    more = f"; and {len(wrong_layers) - _NAMED} more" if len(wrong_layers) > _NAMED else ""
    return f"this machine computes layers wrong: {listed}{more}; see `dms-bench doctor`"


def _described(network: nn.Module, example: Tensor, bf16: bool) -> str:
    """Return all that a network's layers are chosen by, without running it."""
    tensors = [(name, tensor.shape, tensor.stride()) for name, tensor in network.state_dict().items()]
    return f"{network!r} {tensors} {example.shape} {example.stride()} {bf16}"


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class _Known:
    """What this machine is known to compute right. Lines are appended, so that processes do not lose one another's."""

    def __init__(self, device: torch.device) -> None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
        isa = os.environ.get("ONEDNN_MAX_CPU_ISA", torch.backends.cpu.get_cpu_capability())
        check = Path(__file__).parents[1] / "kernels"
        code = b"".join(path.read_bytes() for path in sorted(check.glob("*.py")))
        machine = f"{name} {isa} {torch.__version__} {torch.get_num_threads()} {_key(code.decode())}"
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._path = cache / "dms_bench" / "kernels" / f"{_key(machine)}.right"
        try:
            self.right = set(self._path.read_text().split())
        except (OSError, UnicodeDecodeError):
            self.right = set()

    def add(self, keys: Iterable[str]) -> None:
        """Note what is right; a cache that cannot be written is none."""
        new = [key for key in keys if key not in self.right]
        self.right |= set(new)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write("".join(f"\n{key}" for key in new))
        except OSError as error:
            _log.debug("what is right is not kept: %s", error)
