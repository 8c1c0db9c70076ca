"""A copy of a network with generic weights: what holds for it holds by the network's build, not by its weights."""

from __future__ import annotations

import torch
from torch import nn

from dms_bench.scaling.modules.precision import in_precision
from dms_bench.scaling.modules.reparametrised import copy_of


def generic_copy(model: nn.Module, dtype: torch.dtype, seed: int) -> nn.Module:
    """Return a copy in eval mode under whose weights no branch is silent (zero-initialised norms, layer scales).

    Args:
        model: the network; left as it is.
        dtype: of the copy.
        seed: of its weights.
    """
    # Training drops what eval mode keeps.
    made = in_precision(copy_of(model), dtype).train().eval().requires_grad_(False)
    _randomise(made, torch.Generator().manual_seed(seed))
    return made


def _randomise(model: nn.Module, generator: torch.Generator) -> None:
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            is_buffer = name not in parameters
            if is_buffer and not name.endswith(("running_mean", "running_var")):
                continue
            if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith(("weight", "gamma"))):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.dim() == 1:
                tensor.uniform_(-0.5, 0.5, generator=generator)
            elif tensor.dim() > 1:
                usual = (len(tensor) / tensor.numel()) ** 0.5
                if not float(tensor.square().mean().sqrt()) > usual / 2:
                    tensor.normal_(0, usual, generator=generator)
