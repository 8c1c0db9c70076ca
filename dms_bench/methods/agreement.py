"""Numbers that all workers of a trial have alike, to the last bit."""

from __future__ import annotations

import torch
from torch import Tensor


def of_leader(values: Tensor, device: torch.device) -> Tensor:
    """Return the leading worker's values, on the CPU: the others' may differ in the last bit, and then decide else.

    Args:
        values: as every worker has them, of the same shape and type.
        device: of the trial's workers, through which they talk to one another.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        values = values.to(device).contiguous()
        torch.distributed.broadcast(values, 0)
    return values.cpu()
