"""Layers as numbers: what a kernel is chosen by, and the layers that cuts produce. No tensors here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Layout = Literal["contiguous", "channels-last"]


@dataclass(frozen=True)
class Case:
    """One layer on one input; a linear layer is a convolution over no dimension."""

    #: Samples (of a linear layer: rows), and the size of each dimension that is convolved over.
    batch: int
    size: tuple[int, ...]
    inputs: int
    outputs: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    layout: Layout = "contiguous"
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"

    @property
    def kind(self) -> str:
        """What kind of layer this is, in words that many cases share."""
        if not self.kernel:
            return "linear"
        words = [
            "strided" if any(stride > 1 for stride in self.stride) else "",
            "dilated" if any(step > 1 for step in self.dilation) else "",
            "transposed" if self.transposed else "",
            "" if self.groups == 1 else "depthwise" if self.groups == self.inputs else "grouped",
            "x".join(map(str, self.kernel)),
            "convolution",
        ]
        return " ".join(filter(None, words))

    def __str__(self) -> str:
        shape = f"{self.inputs} -> {self.outputs}"
        if self.groups > 1:
            shape += f", {self.groups} groups"
        size = "x".join(map(str, self.size))
        on = f"{self.batch} x {size} px, {self.layout}" if size else f"{self.batch} rows"
        return f"{self.kind} {shape}, {on}, {self.dtype}"


#: Channels of the layers that are tried everywhere: all the odd ones up to two of AVX-512's vectors of float32 and one
#: beyond, and whole blocks of vectors.
CHANNELS = (*range(1, 34, 2), 8, 16, 32)
#: Large kernels and bfloat16 are tried with these alone: so many cases are enough, and a minute is all there is.
_FEW_CHANNELS = (1, 3, 7, 8, 17, 33)
#: Small, for speed; kernels of size 1 also on more pixels, without which oneDNN's fault (`guard`) does not show.
_BATCH, _PIXELS, _ROWS = 4, 9, 17
_MANY_BATCH, _MANY_PIXELS = 8, 28


def cut_layers(device: str = "cpu") -> Iterator[Case]:
    """Yield the layers that cuts produce: any number of channels, strides, groups, kernels; layouts and types."""
    for case in _shapes():
        for layout in ("contiguous", "channels-last") if case.kernel else ("contiguous",):
            for dtype in ("float32", "bfloat16") if case.inputs in _FEW_CHANNELS else ("float32",):
                yield replace(case, layout=layout, dtype=dtype, device=device)


def _shapes() -> Iterator[Case]:
    for inputs in CHANNELS:
        for outputs in (5, 22):
            yield Case(_ROWS, (), inputs, outputs)
        for size in (1, 3, 5, 7):
            if size > 3 and inputs not in _FEW_CHANNELS:
                continue
            for stride in (1, 2):
                window = Case(
                    _BATCH, (_PIXELS, _PIXELS), inputs, 22, (size, size), (stride, stride), (size // 2,) * 2, (1, 1)
                )
                yield window
                if size == 1:
                    yield replace(window, batch=_MANY_BATCH, size=(_MANY_PIXELS, _MANY_PIXELS))
                if inputs > 1:
                    yield replace(window, outputs=inputs, groups=inputs)
                if inputs % 3 == 0 and inputs > 3:
                    yield replace(window, outputs=2 * inputs, groups=3)
