"""Biases: what the lost inputs of a layer contributed on average goes into its bias.

Source: An et al. 2024 (FLAP), for linear layers; here for convolutions, too, whose inputs are patches with their
padding. The means are those of the whole network, in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.cut.surgery import give_biases
from dms_bench.scaling.modules.hooked import hooked
from dms_bench.scaling.repair.calls import Call, run
from dms_bench.scaling.repair.consumers import Consumer, layer_of
from dms_bench.scaling.repair.fit import WRONG, Fit, computes
from dms_bench.scaling.repair.rows import Layer, matrix, portions


def shift_biases(
    network: nn.Module,
    whole: nn.Module,
    consumers: Sequence[Consumer],
    calls: Sequence[Call],
    device: torch.device,
    tick: Callable[[], None] = lambda: None,
) -> list[Fit]:
    """Move into the biases of a cut network what its layers lost on average; linear layers without one get one.

    Args:
        network: the cut network, changed in place; on `device`, as the whole one.
        whole: the network before the cut.
        consumers: the layers.
        calls: what the networks are called with.
        device: where they are.
        tick: called after each forward pass.

    Returns:
        What came of each layer; how far its outputs are off is not measured.
    """
    means = {consumer.name: _Mean(layer_of(whole, consumer)) for consumer in consumers}
    with hooked(layer_of(whole, one).register_forward_hook(means[one.name], with_kwargs=True) for one in consumers):
        for call in calls:
            run(whole, call, device)
            tick()
    return [_shift(network, consumer, means[consumer.name]) for consumer in consumers]


def _shift(network: nn.Module, consumer: Consumer, mean: _Mean) -> Fit:
    name, layer = consumer.name, layer_of(network, consumer)
    if mean.total is None:
        return Fit(name, left_out=WRONG if mean.wrong else "never called by itself")
    given = layer.bias is None
    if given and not isinstance(layer, nn.Linear):
        return Fit(name, left_out="a convolution without a bias")
    lost = ~consumer.inputs.to(mean.total.device).repeat_interleave(len(mean.total) // len(consumer.inputs))
    stays, factors = consumer.outputs.to(lost.device), consumer.factors.to(lost.device)
    shift = factors * (matrix(mean.layer)[stays][:, lost] @ (mean.total[lost] / mean.rows))
    if given:
        give_biases(network, [name])
    assert layer.bias is not None
    with torch.no_grad():
        layer.bias += shift.to(layer.bias)
    return Fit(name, gave_bias=given)


class _Mean:
    """A forward hook that adds up the rows of what a layer is given."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.rows, self.wrong = layer, 0, False
        self.total: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        self.wrong = self.wrong or not (self.rows or computes(self.layer, x, output))
        if self.wrong:
            return
        for portion in portions(self.layer, x):
            total = portion.double().sum(0)
            self.total = total if self.total is None else self.total + total
            self.rows += len(portion)
