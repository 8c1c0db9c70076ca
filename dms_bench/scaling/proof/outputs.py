"""What networks compute: their outputs, how much two of them differ, and the shapes on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dms_bench.scaling.example import Example, outputs_in

#: Of the tensors that an operator is given.
Shapes = tuple[torch.Size, ...]


class IncomparableError(ValueError):
    """A network whose output has no numbers."""


def run(model: nn.Module, example: Example) -> list[Tensor]:
    """Return the floating tensors of a network's output; what it draws at random is the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        output = example(model)
    compared = [tensor for tensor in outputs_in(output) if tensor.is_floating_point() or tensor.is_complex()]
    if not compared:
        raise IncomparableError(
            f"the network returns no floating-point tensor that could be compared: {type(output).__name__}"
        )
    return compared


def difference_of(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest relative difference of two outputs; infinite where they differ in build."""
    if [tensor.shape for tensor in outputs] != [tensor.shape for tensor in expected]:
        return float("inf")
    worst = 0.0
    for output, reference in zip(outputs, expected, strict=True):
        finite = reference.isfinite()  # masks of attention, as some networks return them, are not
        if not torch.equal(finite, output.isfinite()):
            return float("inf")
        difference = (output - reference)[finite].norm() / reference[finite].norm().clamp_min(1e-12)
        worst = max(worst, float(difference))
    return worst


class InDouble(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leaves in double precision what a model's code rounds to single, as norms and softmax of language models do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rounds = func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.float
        if rounds and args[0].dtype == torch.double:
            kwargs = {**kwargs, "dtype": torch.double}
        return func(*args, **kwargs)


class Work(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the shapes of what matrix products, convolutions and attention are given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes: list[Shapes] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._overloadpacket in flop_registry:
            self.shapes.append(tuple(value.shape for value in args if isinstance(value, Tensor)))
        return func(*args, **(kwargs or {}))
