"""The reference counter: what a network really computes, counted while it runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dms_bench.scaling.example import AnyExample, Example, outputs_in
from dms_bench.scaling.modules.attention import may_fuse, unfused
from dms_bench.scaling.modules.hooked import hooked
from dms_bench.scaling.modules.modes import modes_kept

#: Name and version of the counter, for the record beside every number.
COUNTER = f"torch.utils.flop_counter/3 (torch {torch.__version__.partition('+')[0]})"


#: Dimensions up to which one tensor may be a text whose first dimension are positions; images have more.
_MOST_AMBIGUOUS = 3


def _of_grouped_product(left: Sequence[int], right: Sequence[int], *args: Any, out_shape: Any, **kwargs: Any) -> int:
    """Operations of rows [rows, in] that are multiplied with one of several matrices [groups, in, out] each."""
    return int(2 * math.prod(out_shape) * left[-1])


#: What torch's counter takes for free.
MORE_FORMULAS = {torch.ops.aten._grouped_mm: _of_grouped_product}


def operations() -> FlopCounterMode:
    """Return a counter of what runs inside it."""
    return FlopCounterMode(display=False, custom_mapping=MORE_FORMULAS)


@contextmanager
def countable(model: nn.Module) -> Iterator[None]:
    """Inside it recurrent layers and attention run as operators that the counter knows, unlike their fused forms."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    fused = unfused() if may_fuse(model) else nullcontext()
    with ExitStack() as stack:
        if recurrent:
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(fused)
        yield


@dataclass(frozen=True)
class Count:
    """Cost of one forward pass of one sample."""

    macs: int
    params: int
    counter: str = COUNTER
    #: Elements that convolutions and linear layers write: what bounds the speed of narrow networks on a GPU.
    activations: int = 0


def count(model: nn.Module, example: AnyExample) -> Count:
    """Count MACs (convolutions, matrix products, attention) and parameters of a network.

    Args:
        model: any network; left in the modes it was in.
        example: its input, [batch, ...], or its arguments (see `Example`). MACs are those of one sample; of the whole
            example where the network does not take its rows one by one, as those of a graph.
    """
    example = Example.of(example)
    parameter = next(model.parameters(), None)
    _, macs, activations = _sample(model, example if parameter is None else example.to(parameter.device))
    return Count(round(macs), sum(parameter.numel() for parameter in model.parameters()), activations=activations)


def sample_of(model: nn.Module, example: Example) -> tuple[Example, int]:
    """Return what costs are counted of, one sample of an example or all of it where it has none, and its MACs."""
    sample, macs, _ = _sample(model, example)
    return sample, round(macs)


def _sample(model: nn.Module, example: Example) -> tuple[Example, float, int]:
    """Return what costs are counted of, its MACs and the elements that its layers write."""
    if example.rows == 1:
        return example, *_counted(model, example)
    try:
        of_one = _counted(model, example.batch(1))
        samples = (example.alone and example.tensors()[0].dim() > _MOST_AMBIGUOUS) or _add_up(model, example, of_one[0])
    except Exception:  # a graph of one node, say: whatever its code makes of it
        samples = False
    return (example.batch(1), *of_one) if samples else (example, *_counted(model, example))


def _add_up(model: nn.Module, example: Example, of_one: float) -> bool:
    """Whether every further row costs the same, as samples do; positions of a text attend to more with each."""
    two, three = (_counted(model, example.batch(rows))[0] for rows in (2, 3))
    return three - two == two - of_one > 0


def _counted(model: nn.Module, example: Example) -> tuple[float, int]:
    """Return the MACs of a forward pass and the elements that its layers write."""
    # The counter follows modules by gradient hooks, which fail on parameters that are handed to a module.
    written = _Written()
    layers = [module for module in model.modules() if isinstance(module, nn.modules.conv._ConvNd | nn.Linear)]
    handles = [layer.register_forward_hook(written) for layer in layers]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        with (
            hooked(handles),
            modes_kept(model),
            torch.no_grad(),
            countable(model),
            operations() as counter,
        ):
            example(model.eval())
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return counter.get_total_flops() / 2, written.elements


class _Written:
    """A forward hook that adds up the elements of what layers return: routers return more than one tensor."""

    def __init__(self) -> None:
        self.elements = 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        self.elements += sum(tensor.numel() for tensor in outputs_in(output))
