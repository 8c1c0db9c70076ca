"""Numbers in a precision: real ones in a type, complex ones in that of the same precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_COMPLEX = {torch.float: torch.cfloat, torch.double: torch.cdouble}


def number_in(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return real numbers in a type, complex ones in that of the same precision, and anything else as it is."""
    if tensor.is_complex():
        return tensor.to(_COMPLEX[dtype])
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def in_precision(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Change a network's real numbers to a type, in place, and its complex ones to that of the same precision."""
    changed: nn.Module = model._apply(lambda tensor: number_in(tensor, dtype))  # type: ignore[no-untyped-call]
    return changed
