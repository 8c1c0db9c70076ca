"""The one place where a faulty kernel is kept out of every network of this process."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from dms_bench.kernels.cases import Case

#: oneDNN 3.12 and 3.13 (PyTorch 2.14 and 2.15; https://github.com/uxlfoundation/oneDNN/issues/6035): where a strided
#: convolution of kernel size 1 has fewer input channels than its code handles at once (8 on AVX2, 16 on AVX-512), the
#: weight gradient on channels-last tensors is wrong, and what it writes past its buffer corrupts the heap.
UPSTREAM = "uxlfoundation/oneDNN issue 6035"


@cache
def guard() -> None:
    """Compute the gradients of strided convolutions of kernel size 1 on a CPU from contiguous tensors.

    Put under the operator and not on modules, as the shape occurs in functional convolutions and in 1-d ones over
    transposed sequences too. Holds for this process from now on; results of other shapes, and of right kernels, stay
    what they were. Costs 7 us for each convolution's backward pass and a copy of the tensors of those it changes.
    """
    operator = torch.ops.aten.convolution_backward.default
    original = torch.library.get_kernel(operator, "CPU")

    def contiguous_where_strided(keys: Any, grad: Tensor, data: Tensor, weight: Tensor, *options: Any) -> Any:
        strides = options[1]
        if endangered(weight, strides):
            grad, data, weight = (in_plain_order(tensor) for tensor in (grad, data, weight))
        return original.call_boxed(keys, grad, data, weight, *options)

    library = _library()
    library.impl("convolution_backward", contiguous_where_strided, "CPU", with_keyset=True)  # type: ignore[no-untyped-call]


def endangered(weight: Tensor, strides: list[int]) -> bool:
    """Whether a convolution has the shape that oneDNN's faulty kernel takes; of any number of channels, to be safe.

    Args:
        weight: of the convolution, [out, in, *kernel].
        strides: of its windows, one for each dimension of the kernel or one for all.
    """
    return all(size == 1 for size in weight.shape[2:]) and any(stride > 1 for stride in strides)


def endangered_case(case: Case) -> bool:
    """Tell the same of a case."""
    return bool(case.kernel) and all(size == 1 for size in case.kernel) and any(step > 1 for step in case.stride)


def in_plain_order(tensor: Tensor) -> Tensor:
    """Return a tensor in contiguous layout, with the strides of one also where dimensions of size 1 leave a choice.

    PyTorch takes the layout from the strides, and `contiguous` leaves those of a weight [out, in, 1, 1] as they are.
    """
    return tensor.contiguous().flatten().view(tensor.shape)


@cache
def _library() -> torch.library.Library:
    """Return what holds the replacement; kept, as it takes back what it registered when it is collected."""
    return torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
