"""The layers of a network as cases to check, from one forward pass: real shapes, strides and layouts, made small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dms_bench.kernels.cases import Case

#: Largest number of pixels in each direction, of channels, and of rows of a linear layer. A kernel is chosen by kernel
#: size, stride, groups, layout and what channels leave of whole blocks (of 64 at most): more pixels or whole blocks
#: repeat what was computed, and cost ten times the time. The remainder of a block, and odd sizes, are kept.
_PIXELS, _CHANNELS, _BLOCK, _ROWS = 14, 128, 64, 32


def layers_of(model: nn.Module, example: Tensor) -> dict[Case, str]:
    """Return the convolutions and linear layers that a network runs, each with the name of the first module to run it.

    Convolutions are returned in both layouts, as training may have another one than the example.

    Args:
        model: on the example's device; left in the modes it was in.
        example: its input, [batch, ...].
    """
    running = [""]
    recorder = _Recorder(running)
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _named(model, running), recorder:
            model.eval()(example)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return recorder.cases


@contextmanager
def _named(model: nn.Module, running: list[str]) -> Iterator[None]:
    """Keep the name of the module that runs at the end of a list, while a network runs."""
    handles = []
    for name, module in model.named_modules():
        enter = lambda *_, name=name: running.append(name)  # noqa: E731
        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(lambda *_: running.pop() and None, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes convolutions and products with a weight below the level at which modules, and functions, differ."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cases: dict[Case, str] = {}
        self._names = names

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = func.overloadpacket
        if operator is torch.ops.aten.convolution:
            for case in _convolution(*args):
                self.cases.setdefault(case, self._names[-1])
        elif operator in (torch.ops.aten.addmm, torch.ops.aten.mm):
            data, weight = args[-2:]
            if weight.dim() == 2 and _checkable(data):
                rows = min(len(data), _ROWS)
                case = Case(rows, (), _fewer(data.shape[1]), _fewer(weight.shape[1]), dtype=_dtype(data))
                self.cases.setdefault(replace(case, device=data.device.type), self._names[-1])
        return func(*args, **(kwargs or {}))


def _convolution(
    data: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    _: Any,
    groups: int,
) -> Iterator[Case]:
    if not _checkable(data):
        return
    inputs, outputs = weight.shape[:2] if transposed else (data.shape[1], weight.shape[0])
    outputs = outputs * groups if transposed else outputs
    each = (_fewer(inputs // groups), _fewer(outputs // groups))
    groups = _fewer(groups, max(1, _CHANNELS // max(each)))
    kernel = tuple(weight.shape[2:])
    full = [(size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)]
    size = tuple(_smaller(pixels, window) for pixels, window in zip(data.shape[2:], full, strict=True))
    for layout in _LAYOUTS:
        yield Case(
            len(data), size, each[0] * groups, each[1] * groups, kernel, tuple(stride), tuple(padding),
            tuple(dilation), groups, transposed, layout, _dtype(data), data.device.type,
        )  # fmt: skip


_LAYOUTS: tuple[Literal["contiguous", "channels-last"], ...] = ("contiguous", "channels-last")


def _checkable(data: Tensor) -> bool:
    return data.dtype in (torch.float32, torch.bfloat16)


def _dtype(data: Tensor) -> Literal["float32", "bfloat16"]:
    return "bfloat16" if data.dtype == torch.bfloat16 else "float32"


def _fewer(number: int, most: int = _CHANNELS) -> int:
    """Return a smaller number that leaves the same of whole blocks, where there are more than `most`."""
    block = min(_BLOCK, most)
    return number if number <= most + block else most // block * block + number % block


def _smaller(pixels: int, window: int) -> int:
    """Return fewer pixels, odd where they were odd, and no fewer than a window covers."""
    most = max(_PIXELS, window + 2)
    return pixels if pixels <= most else most - (most - pixels) % 2
