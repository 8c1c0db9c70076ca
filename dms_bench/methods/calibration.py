"""What a network does on a few batches of training data: inputs of masked layers, gradients, blocks.

Shape legend:
    N: rows (samples and positions) of a layer's input
    C: features of a layer's input
    E: elements of the search space
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.methods.base import SearchContext
from dms_bench.scaling import SearchSpace
from dms_bench.scaling.modules.hooked import hooked
from dms_bench.scaling.modules.modes import modes_kept
from dms_bench.scaling.space.elements import Site
from dms_bench.tasks import Task


@dataclass
class Moments:
    """Sums over the rows of a layer's input, in double precision."""

    count: int
    total: Tensor
    square: Tensor

    @property
    def variance(self) -> Tensor:
        """Variance of each feature (over N, not N - 1), [C]."""
        return (self.square / self.count - (self.total / self.count).square()).clamp_min(0)


def watched(modules: dict[str, nn.Module], hook: Callable[[str, Any, Any], None]) -> AbstractContextManager[None]:
    """Call `hook(name, first argument, output)` after every forward pass of some modules inside."""

    def watching(name: str) -> Callable[..., None]:
        return lambda module, args, output: hook(name, args[0], output)

    return hooked(module.register_forward_hook(watching(name)) for name, module in modules.items())


def look(context: SearchContext, batches: int, network: nn.Module | None = None) -> float:
    """Run a network on calibration batches, in eval mode without gradients, and return its mean loss.

    Args:
        context: the search.
        batches: how many.
        network: what is run; the supernet unless given.
    """
    device = context.loop.device
    model = (context.model if network is None else network).to(device)
    return mean_loss(context.task, model, batches, device, context.loop.tick)


def mean_loss(
    task: Task, model: nn.Module, batches: int, device: torch.device, tick: Callable[[], None] = lambda: None
) -> float:
    """Return a network's mean loss on calibration batches, in eval mode without gradients; `tick` after each."""
    with modes_kept(model), torch.no_grad():
        model.eval()
        losses = []
        for loss in task.losses(model, batches, device):
            losses.append(float(loss))
            tick()
    return sum(losses) / len(losses)


@contextmanager
def with_gradients(context: SearchContext, batches: int) -> Iterator[nn.Module]:
    """Give the supernet, inside, the gradients of its loss, summed over calibration batches."""
    model, device = context.model.to(context.loop.device), context.loop.device
    with modes_kept(model):
        # Statistics as trained; looking at a network must not move them.
        model.eval().zero_grad()
        for loss in context.task.losses(model, batches, device):
            loss.backward()  # type: ignore[no-untyped-call]
            context.loop.tick()
    yield model
    model.zero_grad()


def plain_sites(model: nn.Module, space: SearchSpace) -> list[Site]:
    """Return the sites whose layer applies a weight of its own to features of its input: linear, convolution."""
    sites = []
    for site in space.sites:
        module = model.get_submodule(site.module)
        usual = isinstance(module, nn.Linear) or (isinstance(module, nn.modules.conv._ConvNd) and module.groups == 1)
        if usual and site.dim == 1 and not getattr(module, "transposed", False):
            sites.append(site)
    return sites


def input_moments(context: SearchContext, sites: list[Site], batches: int) -> dict[str, Moments]:
    """Return the moments of the inputs of some sites' layers, by layer."""
    moments: dict[str, Moments] = {}

    def note(name: str, x: Tensor, output: Any) -> None:
        linear = isinstance(modules[name], nn.Linear)
        rows = (x if linear else x.movedim(1, -1)).detach().flatten(0, -2).double()
        batch_moments = Moments(len(rows), rows.sum(0).cpu(), rows.square().sum(0).cpu())
        if name in moments:
            batch_moments.count += moments[name].count
            batch_moments.total += moments[name].total
            batch_moments.square += moments[name].square
        moments[name] = batch_moments

    modules = {site.module: context.model.get_submodule(site.module) for site in sites}
    with watched(modules, note):
        look(context, batches)
    return moments


def weight_of(model: nn.Module, site: Site) -> Tensor:
    """Return a site's weight on the CPU in double precision, everything but its inputs flattened, [outputs, C]."""
    weight = model.get_parameter(site.parameter).detach().double().cpu()
    return weight.movedim(site.dim, -1).flatten(0, -2)


def per_element(space: SearchSpace, site: Site, scores: Tensor) -> Tensor:
    """Sum scores of a site's inputs [C] over the elements that they belong to, [E]."""
    result = torch.zeros(space.units.total + 1, dtype=scores.dtype)
    for elements in space.elements_of(site.parameter, site.dim):
        result.index_add_(0, torch.where(elements >= 0, elements, space.units.total), scores)
    return result[:-1]
