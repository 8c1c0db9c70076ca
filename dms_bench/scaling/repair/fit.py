"""Least squares: every layer that reads a cut width is given what brings its outputs closest to the whole network's.

Layer by layer, in the order in which the cut network calls them: the inputs are those that the layer gets in the cut
network as it is by then, with all layers before it repaired; the targets are what the same layer returns in the whole
network for the same samples. So a layer also makes up for what could not be made up for before it: for norms, whose
statistics have changed, and for removed blocks. That is the order of GPTQ (Frantar et al. 2023), and the least squares
those by which He et al. 2017 ("Channel pruning for accelerating very deep neural networks", equation 3) reconstruct a
convolution. It takes two forward passes for each layer, which end at the layer, and the sums of one layer at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dms_bench.scaling.repair.calls import Call, passed
from dms_bench.scaling.repair.consumers import Consumer, layer_of
from dms_bench.scaling.repair.normal import NormalEquations
from dms_bench.scaling.repair.rows import Layer, matrix, output_rows, portions

#: More inputs than this (features times the places of the kernel) are too many: their sums alone would be 2 GiB.
MOST_FEATURES = 16_384
#: A layer whose outputs differ by more from its weight times its inputs computes something else.
_LOOSE = 1e-2
#: What is said of such a layer, and of one that sees other samples than in the whole network (experts).
WRONG, OTHERWISE = "its output is not its weight times its input", "called otherwise than in the whole network"


@dataclass(frozen=True)
class Fit:
    """What came of one layer.

    Attributes:
        name: its path.
        before: distance of its outputs from the whole network's, as a share of the latter's sum of squares.
        after: the same with its new weights.
        left_out: why it was left as it was, or empty.
        gave_bias: whether it had no bias, and was given one.
    """

    name: str
    before: float = 0.0
    after: float = 0.0
    left_out: str = ""
    gave_bias: bool = False


def fits(
    network: nn.Module,
    whole: nn.Module,
    consumers: Sequence[Consumer],
    times: dict[str, int],
    calls: Sequence[Call],
    device: torch.device,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Fit]:
    """Give layers of a cut network new weights, one after the other, and tell of each.

    Args:
        network: the cut network, changed in place; on `device`, as the whole one.
        whole: the network before the cut.
        consumers: the layers, in the order of their calls.
        times: how often each is called in a forward pass.
        calls: what the networks are called with.
        device: where they are.
        tick: called after each forward pass.
    """
    for consumer in consumers:
        yield _fit(network, whole, consumer, times[consumer.name], calls, device, tick)


def computes(layer: Layer, x: Tensor, y: Tensor) -> bool:
    """Tell whether a layer's output is its weight times its input, and its bias, as far as can be seen."""
    try:
        made = next(portions(layer, x)).double() @ matrix(layer).T
    except (RuntimeError, IndexError):  # inputs of another shape than its kind has
        return False
    if layer.bias is not None:
        made = made + layer.bias.detach().double()
    returned = output_rows(layer, y)[: len(made)].double()
    return returned.shape == made.shape and float((made - returned).norm()) <= _LOOSE * float(returned.norm())


def _fit(
    network: nn.Module,
    whole: nn.Module,
    consumer: Consumer,
    times: int,
    calls: Sequence[Call],
    device: torch.device,
    tick: Callable[[], None],
) -> Fit:
    name, layer = consumer.name, layer_of(network, consumer)
    features = layer.weight[0].numel()
    if features > MOST_FEATURES:
        return Fit(name, left_out=f"more than {MOST_FEATURES} inputs")
    stays, factors = consumer.outputs.to(device), consumer.factors.to(device)
    equations = NormalEquations(features, len(layer.weight), device, biased=layer.bias is not None)
    for call in calls:
        pairs, wanted = (passed(each, name, times, call, device) for each in (network, whole))
        tick()
        if len(pairs) != len(wanted):
            return Fit(name, left_out=OTHERWISE)
        for (x, y), (_, target) in zip(pairs, wanted, strict=True):
            if not equations.rows and not computes(layer, x, y):
                return Fit(name, left_out=WRONG)
            rows = output_rows(layer, target)[:, stays].double() * factors
            if len(rows) != len(output_rows(layer, y)):
                return Fit(name, left_out=OTHERWISE)
            start = 0
            for portion in portions(layer, x):
                equations.add(portion, rows[start : start + len(portion)])
                start += len(portion)
    if not equations.rows:
        return Fit(name, left_out="never given anything")
    old, bias = matrix(layer), None if layer.bias is None else layer.bias.detach().double()
    new, new_bias = equations.solve(old)
    if not bool(new.isfinite().all()):
        return Fit(name, left_out="no finite weights")
    with torch.no_grad():
        layer.weight.copy_(new.view_as(layer.weight))
        if layer.bias is not None and new_bias is not None:
            layer.bias.copy_(new_bias)
    return Fit(name, equations.error(old, bias), equations.error(new, new_bias))
