"""What networks compute: their outputs, how much two of them differ, and the shapes on the way."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dms_bench.scaling.cost.counter import MORE_FORMULAS
from dms_bench.scaling.example import Example, outputs_in
from dms_bench.scaling.tracing.records import RUN

#: Numbers below this are taken for it, where differences are relative.
_SMALL = 1e-12
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
        if not torch.equal(finite, output.isfinite()) or (finite.numel() and not finite.any()):
            return float("inf")  # where nothing is finite there is nothing to compare
        numbers, right = output[finite], reference[finite]
        # Scaled first: squares of large numbers, which norms add up, overflow.
        scale = float(right.abs().amax().clamp_min(_SMALL)) if right.numel() else 1.0
        difference = float(((numbers - right) / scale).norm() / (right / scale).norm().clamp_min(_SMALL / scale))
        if not math.isfinite(difference):
            return float("inf")
        worst = max(worst, difference)
    return worst


class InDouble(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leaves in double precision what a model's code rounds to single, as norms and softmax of language models do.

    Grouped products, which torch has for lower precision alone, are made group by group.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rounds = func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.float
        if rounds and args[0].dtype == torch.double:
            kwargs = {**kwargs, "dtype": torch.double}
        if func is torch.ops.aten._grouped_mm.default and args[0].dtype == torch.double:
            return _grouped_product(*args, **kwargs)
        return func(*args, **kwargs)


def _grouped_product(left: Tensor, right: Tensor, offs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Multiply rows [rows, in] with the matrix [groups, in, out] of the group that they lie in; `offs`: their ends."""
    if any(max(operand.stride()[-2:]) % RUN for operand in (left, right)):
        raise ValueError("a grouped product of rows that are no multiples of 16 bytes")
    result, start = left.new_zeros(len(left), right.size(2)), 0
    for matrix, end in zip(right, offs.tolist(), strict=True):
        torch.mm(left[start:end], matrix, out=result[start:end])
        start = end
    return result


class Work(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the shapes of what matrix products, convolutions and attention are given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes: list[Shapes] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._overloadpacket in flop_registry or func._overloadpacket in MORE_FORMULAS:
            self.shapes.append(tuple(value.shape for value in args if isinstance(value, Tensor)))
        return func(*args, **(kwargs or {}))
