"""How much each element of a search space matters, by the weights that belong to it.

The scores are those of torch-pruning's importance estimators (Fang et al. 2023), on our elements instead of its
dependency groups; tests compare the two. As there, the weights of convolutions and linear layers count, with the
scales of some norms; biases and depthwise convolutions do not.

Shape legend:
    E: elements of all units
    G: width groups
    B: removable blocks of all stages
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from dms_bench.scaling import SearchSpace

#: Score of every entry of a weight, in its shape.
Saliency = Callable[[nn.Parameter], Tensor]


@dataclass(frozen=True)
class _Part:
    """A dimension of a weight, and the element of each index along it (-1: always stays)."""

    weight: nn.Parameter
    dim: int
    elements: Tensor
    #: The layer makes these elements; else it reads or normalises them.
    makes: bool


def magnitude(p: int) -> Saliency:
    """Return |w|^p: summed, the p-th power of a norm."""
    return lambda weight: weight.detach().abs().pow(p)


def taylor(weight: nn.Parameter) -> Tensor:
    """Return |w dL/dw|, with the gradient that has been accumulated; 0 where there is none."""
    return torch.zeros_like(weight) if weight.grad is None else (weight.detach() * weight.grad).abs()


def maker_scores(model: nn.Module, space: SearchSpace, saliency: Saliency) -> Tensor:
    """Score elements by the first layer, in the order of modules, that makes them, [E].

    Where several indices of that layer make one element (a head's), it is scored by their mean, so that
    elements of different kinds compare. This is `group_reduction="first", normalizer=None`.
    """
    total = space.units.total + 1
    scores = torch.zeros(total, dtype=torch.float64)
    scored = torch.zeros(total, dtype=torch.bool)
    for part in _parts(model, space, norms=()):
        if part.makes:
            indices = torch.bincount(_places(part, total), minlength=total)
            fresh = (indices > 0) & ~scored
            scores[fresh] = (_summed(part, saliency, total) / indices.clamp(min=1))[fresh]
            scored |= fresh
    return scores[:-1]


def shared_scores(
    model: nn.Module, space: SearchSpace, saliency: Saliency, norms: tuple[type[nn.Module], ...]
) -> Tensor:
    """Score elements by all layers that make, read or normalise them, relative to their group's mean, [E].

    This is `group_reduction="mean", normalizer="mean"`. Arguments are those of `mean_scores`.
    """
    units, mean = space.units, mean_scores(model, space, saliency, norms)
    sums = torch.zeros(len(units.sizes), dtype=torch.float64).index_add_(0, units.owner, mean)
    level = sums / torch.tensor(units.sizes)
    return mean / level.where(level > 0, 1.0)[units.owner]


def mean_scores(model: nn.Module, space: SearchSpace, saliency: Saliency, norms: tuple[type[nn.Module], ...]) -> Tensor:
    """Score elements by the mean over all layers that make, read or normalise them, [E]; blocks have none.

    This is `group_reduction="mean", normalizer=None`.

    Args:
        model: the network.
        space: its search space.
        saliency: of a weight's entries.
        norms: the norms whose scales count.
    """
    units = space.units
    scores, parts = torch.zeros(units.total + 1, dtype=torch.float64), torch.zeros(len(units.sizes))
    for part in _parts(model, space, norms):
        scores += _summed(part, saliency, len(scores))
        parts[sorted(_groups(part, units.owner))] += 1
    return scores[:-1] / parts.clamp(min=1)[units.owner]


def block_scores(model: nn.Module, space: SearchSpace, saliency: Saliency) -> Tensor:
    """Score removable blocks by the mean over their layers of a layer's sum, [B].

    So a block compares with a width group: the elements of a group together score the mean of the layers' sums.
    Depthwise convolutions count here as little as there.
    """
    scores = []
    for block in space.blocks:
        layers = [weight for weight in map(_weight_of, model.get_submodule(block).modules()) if weight is not None]
        sums = [float(saliency(weight).double().sum()) for weight in layers]
        scores.append(sum(sums) / max(len(sums), 1))
    return torch.tensor(scores, dtype=torch.float64)


def topologies(model: nn.Module, space: SearchSpace) -> Tensor:
    """Number the kinds of width groups: equal for groups that lie along the same kinds of parameters, [G]."""
    owner, modules = space.units.owner, dict(model.named_modules())
    parameter_kinds: list[list[str]] = [["heads"] if group.heads else [] for group in space.groups]
    for (name, dim), elements in space.occurrences():
        parent, _, leaf = name.rpartition(".")
        for group in set(owner[elements[elements >= 0]].tolist()):
            parameter_kinds[group].append(f"{type(modules[parent]).__name__}.{leaf} {dim}")
    kinds = [tuple(sorted(parts)) for parts in parameter_kinds]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    return torch.tensor([numbers[kind] for kind in kinds], dtype=torch.long)


def _parts(model: nn.Module, space: SearchSpace, norms: tuple[type[nn.Module], ...]) -> Iterator[_Part]:
    """Yield the weights that count, in the order of modules, outputs before inputs."""
    for name, module in model.named_modules():
        layer = _weight_of(module) is not None
        weight = module.weight if isinstance(module, norms) else _weight_of(module)
        if not isinstance(weight, nn.Parameter):
            continue
        output = 1 if isinstance(module, _ConvTransposeNd) else 0
        for dim in (output, 1 - output) if layer else (0,):
            for elements in space.elements_of(f"{name}.weight" if name else "weight", dim):
                yield _Part(weight, dim, elements, makes=layer and dim == output)


def _weight_of(module: nn.Module) -> nn.Parameter | None:
    """Return the weight of a layer that counts."""
    depthwise = isinstance(module, _ConvNd) and module.groups == module.out_channels > 1
    if depthwise or not isinstance(module, nn.Linear | _ConvNd):
        return None
    return module.weight if isinstance(module.weight, nn.Parameter) else None


def _places(part: _Part, total: int) -> Tensor:
    """Where each index goes in a vector of elements whose last place collects what always stays."""
    return torch.where(part.elements >= 0, part.elements, total - 1)


def _summed(part: _Part, saliency: Saliency, total: int) -> Tensor:
    """Sum a part's score over everything but its elements, [total]."""
    entries = saliency(part.weight).double().cpu()
    other_dims = [dim for dim in range(entries.dim()) if dim != part.dim]
    sums = entries.sum(other_dims) if other_dims else entries
    return torch.zeros(total, dtype=torch.float64).index_add_(0, _places(part, total), sums)


def _groups(part: _Part, owner: Tensor) -> set[int]:
    """Return the units that a part has elements of."""
    return set(owner[part.elements[part.elements >= 0]].tolist())
