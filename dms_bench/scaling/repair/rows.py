"""A linear layer or a convolution as one matrix product: rows of inputs, of which each gives a row of outputs.

Shape legend:
    B: samples
    C: features of the input
    K: places of a convolution's kernel; 1 for a linear layer
    L: places of the output
    O: features of the output
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Numbers that are unfolded at once, in double precision 64 MiB.
_AT_ONCE = 2**23

Layer = nn.Linear | nn.modules.conv._ConvNd


def rows_of(layer: Layer, x: Tensor) -> Tensor:
    """Return the inputs of a layer as rows, [B L, C K]: of a convolution, of one group, the patches that it sees.

    Args:
        layer: a linear layer, or a convolution in any number of dimensions, with its padding, stride and dilation.
        x: its input: of a linear layer [..., C], of a convolution [B, C, *places] or [C, *places].
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.size(-1))
    dims = len(layer.kernel_size)
    x = x if x.dim() == dims + 2 else x.unsqueeze(0)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    for place, (size, stride, dilation) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        dim = 2 + 2 * place  # the dimension before has become two: places of the output and of the kernel
        number = (x.size(dim) - dilation * (size - 1) - 1) // stride + 1
        starts = torch.arange(number, device=x.device)[:, None] * stride
        seen = starts + torch.arange(size, device=x.device) * dilation  # [L, K]
        x = x.index_select(dim, seen.flatten())
        x = x.reshape(*x.shape[:dim], number, size, *x.shape[dim + 1 :])
    outputs, kernel = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)
    rows = x.permute(0, *outputs, 1, *kernel)
    return rows.flatten(0, dims).flatten(1)


def output_rows(layer: Layer, y: Tensor) -> Tensor:
    """Return the outputs of a layer as rows, [B L, O], in the order of `rows_of`."""
    if isinstance(layer, nn.Linear):
        return y.reshape(-1, y.size(-1))
    y = y if y.dim() == len(layer.kernel_size) + 2 else y.unsqueeze(0)
    return y.movedim(1, -1).flatten(0, -2)


def portions(layer: Layer, x: Tensor) -> Iterator[Tensor]:
    """Yield the rows of `rows_of`, a portion at a time: patches of a whole batch may not fit into memory."""
    if isinstance(layer, nn.Linear):
        yield from rows_of(layer, x).split(max(1, _AT_ONCE // x.size(-1)))  # type: ignore[no-untyped-call]
        return
    kernel = len(layer.weight[0, 0].flatten())
    x = x if x.dim() == len(layer.kernel_size) + 2 else x.unsqueeze(0)
    samples = max(1, _AT_ONCE // max(1, x[0].numel() * kernel))
    for part in x.split(samples):  # type: ignore[no-untyped-call]
        yield rows_of(layer, part)


def matrix(layer: Layer) -> Tensor:
    """Return the matrix that the rows are multiplied with, in double precision, [O, C K]."""
    return layer.weight.detach().double().flatten(1)
