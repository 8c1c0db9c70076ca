"""How much an element matters: the scores c that the top-k ranks (table 6), and the size of its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dms_bench.scaling.space.space import SearchSpace

#: Score of one step from mask m and gradient g = dLoss_task / dm, both [E].
IMPORTANCE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "taylor": lambda mask, gradient: (mask * gradient).square(),
    "snip": lambda mask, gradient: (mask * gradient).abs(),
    "fisher": lambda mask, gradient: gradient.square(),
}
#: Those that are zero where the mask is; a fixed order asks for no gradient at all.
VANISHING = ("taylor", "snip", "index")


def update_importance(
    importance: Tensor, kinds: Sequence[tuple[slice, str]], mask: Tensor, gradient: Tensor, decay: float
) -> None:
    """Equation (4), in place: c <- decay c + (1 - decay) score(m, g).

    A step whose gradients are not all finite leaves it as it was, as an optimiser under a gradient scaler skips such a
    step. `index` is a fixed order: the first elements matter most and no score is taken up.

    Args:
        importance: c, [E].
        kinds: which elements have which score.
        mask: m, [E].
        gradient: g, [E].
        decay: of the moving average.
    """
    updated = importance.clone()
    for elements, kind in kinds:
        if kind != "index":
            score = IMPORTANCE[kind](mask[elements], gradient[elements])
            updated[elements] = decay * importance[elements] + (1 - decay) * score
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
