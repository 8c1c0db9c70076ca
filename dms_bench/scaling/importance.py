"""How much an element matters: the scores c that the top-k ranks (table 6 of the paper)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

#: Score of one step from mask m and gradient g = dLoss_task / dm, both [E].
IMPORTANCE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "taylor": lambda mask, gradient: (mask * gradient).square(),
    "snip": lambda mask, gradient: (mask * gradient).abs(),
    "fisher": lambda mask, gradient: gradient.square(),
}


def update_importance(importance: Tensor, kind: str, mask: Tensor, gradient: Tensor, decay: float) -> None:
    """Equation (4), in place: c <- decay c + (1 - decay) score(m, g).

    `index` is a fixed order: the first elements matter most and no score is taken up.
    """
    if kind != "index":
        importance.mul_(decay).add_(IMPORTANCE[kind](mask, gradient), alpha=1 - decay)
