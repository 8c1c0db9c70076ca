"""Kinds of ATen operators that a trace tells apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Operators that cost MACs: recorded even where nothing is labelled.
CONTRACTIONS = {
    *("mm", "bmm", "addmm", "baddbmm", "matmul", "linear", "convolution", "_convolution"),
    *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"),
    *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
    "_grouped_mm",
}

#: Operators through which the identity path of a residual block may pass.
RESIDUAL_OPERATORS = {
    *("add", "relu", "gelu", "silu", "hardswish", "leaky_relu", "relu6", "hardtanh", "elu", "mish"),
    *("view", "reshape", "_unsafe_view", "permute", "transpose", "clone", "contiguous", "detach", "alias", "_to_copy"),
}

#: Operators that only move elements, of one tensor to one.
MOVES = {
    *("view", "reshape", "_unsafe_view", "permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "slice"),
    *("select", "clone", "contiguous", "detach", "alias", "flip", "roll", "repeat", "unfold", "lift_fresh"),
    *("pixel_shuffle", "pixel_unshuffle", "narrow"),
}
#: Operators that take a tensor apart.
SPLITS = {
    *("split", "split_with_sizes", "chunk", "unbind", "tensor_split"),
    *("unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk"),
}


def has_numbers(tensor: Tensor) -> bool:
    """Whether a tensor holds real or complex numbers, not integers or truth values."""
    return tensor.is_floating_point() or tensor.is_complex()


def is_pointwise(func: Any, name: str) -> bool:
    """Whether an operator works element by element; in-place variants are judged by their original."""
    if torch.Tag.pointwise in func.tags:
        return True
    original = getattr(torch.ops.aten, name.rstrip("_"), None)
    return original is not None and any(
        torch.Tag.pointwise in getattr(original, overload).tags for overload in original.overloads()
    )
