"""How large the weights of an element are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dms_bench.scaling.space.space import SearchSpace


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
