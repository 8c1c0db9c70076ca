"""How much an element matters: the scores c that the top-k ranks (table 6), and the size of its weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dms_bench.scaling.space.space import SearchSpace

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


@torch.no_grad()
def weight_norms(model: nn.Module, space: SearchSpace) -> Tensor:
    """Return the L2 norm of all parameters that belong to each element, [E]; ones for blocks.

    Elements are compared within their group only, so that no scaling between layers is needed.
    """
    parameters = dict(model.named_parameters())
    squares = torch.zeros(space.units.total + 1)  # the last place collects what always stays
    for (name, dim), elements in space.occurrences():
        if name in parameters:
            weight = parameters[name].detach().float().cpu()
            summed = [across for across in range(weight.dim()) if across != dim]
            by_index = weight.square().sum(summed) if summed else weight.square()
            squares.index_add_(0, torch.where(elements >= 0, elements, space.units.total), by_index)
    norms = squares[:-1].sqrt()
    norms[space.width_elements :] = 1.0
    return norms
