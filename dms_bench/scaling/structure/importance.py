"""How much an element matters: the scores c that the top-k ranks (table 6 of the paper)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Score of one step from mask m and gradient g = dLoss_task / dm, both [E].
IMPORTANCE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "taylor": lambda mask, gradient: (mask * gradient).square(),
    "snip": lambda mask, gradient: (mask * gradient).abs(),
    "fisher": lambda mask, gradient: gradient.square(),
}


def update_importance(importance: Tensor, kind: str, mask: Tensor, gradient: Tensor, decay: float) -> None:
    """Equation (4), in place: c <- decay c + (1 - decay) score(m, g).

    A step whose gradients are not all finite leaves it as it was, as an optimiser under a gradient scaler skips such a
    step. `index` is a fixed order: the first elements matter most and no score is taken up.
    """
    if kind == "index":
        return
    updated = decay * importance + (1 - decay) * IMPORTANCE[kind](mask, gradient)
    importance.copy_(torch.where(updated.isfinite().all(), updated, importance))
