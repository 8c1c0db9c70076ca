"""The layers that read a cut width, and which of them can be repaired."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dms_bench.scaling.architecture import Architecture
from dms_bench.scaling.cut.surgery import query_rows
from dms_bench.scaling.modules.tied import owners_of
from dms_bench.scaling.repair.rows import Layer
from dms_bench.scaling.space.elements import Site
from dms_bench.scaling.space.space import SearchSpace


@dataclass(frozen=True)
class Consumer:
    """A layer of the whole network some of whose inputs are gone in the cut one.

    Attributes:
        name: its path, in both networks.
        inputs: which of its inputs stay, bool [C].
        outputs: which of its outputs stay, bool [O].
        factors: what the cut network makes of each of its outputs that stay: other than 1 for queries of smaller heads.
    """

    name: str
    inputs: Tensor
    outputs: Tensor
    factors: Tensor


def consumers_of(
    whole: nn.Module, space: SearchSpace, architecture: Architecture
) -> tuple[dict[str, Consumer], dict[str, str]]:
    """Return the layers of an architecture that read a cut width, by name.

    Args:
        whole: the network before the cut.
        space: its search space.
        architecture: what is kept.

    Returns:
        Those that can be repaired: linear layers and convolutions of one group, with a weight of their own. And those
        that cannot, with the reason. Layers in removed blocks are neither.
    """
    mask = space.mask(architecture)
    kept = torch.cat([mask.bool(), torch.tensor([True])])
    gone = [block for block, stays in zip(space.blocks, mask[space.width_elements :], strict=True) if not stays]
    shared = {id(tensor) for tensor in whole.parameters() if len(owners_of(whole).get(id(tensor), [])) > 1}
    consumers, left_out = {}, {}
    for site in space.sites:
        if any(f"{site.module}.".startswith(f"{block}.") for block in gone):
            continue
        inputs = _stays(space, kept, site.parameter, site.dim)
        if inputs is None or bool(inputs.all()):
            continue
        layer = whole.get_submodule(site.module)
        reason = _unfit(layer, site, shared)
        if reason:
            left_out[site.module] = reason
            continue
        outputs = _stays(space, kept, site.parameter, 0)
        if outputs is None:
            outputs = torch.ones(len(layer.get_parameter("weight")), dtype=torch.bool)
        factors = torch.ones(int(outputs.sum()), dtype=torch.double)
        for row in space.rows:
            if row.parameter == site.parameter and row.scaled:
                queries, factor = query_rows(row, space, kept)
                factors[queries] = factor
        consumers[site.module] = Consumer(site.module, inputs, outputs, factors)
    return consumers, left_out


def layer_of(network: nn.Module, consumer: Consumer) -> Layer:
    """Return a consumer's layer in the whole network or in the cut one."""
    layer = network.get_submodule(consumer.name)
    assert isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)
    return layer


def _stays(space: SearchSpace, kept: Tensor, name: str, dim: int) -> Tensor | None:
    elements = space.cut_dims().get((name, dim))
    return None if elements is None else kept[elements[0]] & kept[elements[1]]


def _unfit(layer: nn.Module, site: Site, shared: set[int]) -> str | None:
    """Return why a layer cannot be repaired; None where it can."""
    convolution = isinstance(layer, nn.modules.conv._ConvNd)
    if not (isinstance(layer, nn.Linear) or convolution) or getattr(layer, "transposed", False):
        return "neither a linear layer nor a convolution"
    if convolution and layer.groups != 1:
        return "a convolution in groups"
    if site.parameter.rpartition(".")[2] != "weight" or site.dim != 1 or site.standardised:
        return "its weight is computed from others"
    if "weight" not in layer._parameters:
        return "its weight is computed from others"
    return "its weight is shared with another layer" if id(layer.weight) in shared else None
