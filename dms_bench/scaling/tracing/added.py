"""Branches that the code around them adds: `x = attention(norm(x)) + x` in the forward pass of their parent.

Such a module is no residual block itself, as its output is the branch alone. Without it the addition sees zero. It is
told by where its output goes, to an addition and nowhere else but through what leaves a zero zero, and by what is added
to it: what the module's own input was made of, by norms alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from dms_bench.scaling.modules.blocks import features_of
from dms_bench.scaling.tracing.operators import RESIDUAL_OPERATORS
from dms_bench.scaling.tracing.records import ModuleCall

#: Operators, beside those of identity paths, that make zero of zero, whatever else they read.
_SCALES = ("mul", "div")


class AddedBranches:
    """Follows what modules return to the addition that it ends in.

    Args:
        made_of: whether a module's input is made of what is added to its output, but for norms.
    """

    def __init__(self, made_of: Callable[[Tensor, Tensor], bool]) -> None:
        self._made_of = made_of
        #: By tensor: the calls whose output it is, but for a scale, and that nothing was added to so far.
        self._pending: dict[int, list[ModuleCall]] = {}

    def returned(self, call: ModuleCall) -> None:
        """A module's call returned."""
        features = features_of(call.output)
        if features is not None and call.entry is not None and features.shape == call.entry.shape:
            calls = self._pending.setdefault(id(features), [])
            self._pending[id(features)] = [*calls, call]

    def read(self, name: str, operands: list[Tensor], out: Any) -> None:
        """An operator, or a norm, ran."""
        if not any(id(operand) in self._pending for operand in operands):
            return
        operator = name.rstrip("_")
        passing: list[ModuleCall] = []
        for index, operand in enumerate(operands):
            calls = self._pending.get(id(operand), [])
            others = operands[:index] + operands[index + 1 :]
            alone = operator in RESIDUAL_OPERATORS and not others
            if operator == "add" and len(others) == 1 and others[0].shape == operand.shape:
                passing += [call for call in calls if not self._joined(call, others[0])]
            elif alone or (operator in _SCALES and (index == 0 or operator == "mul")):
                passing += calls
            else:
                for call in calls:
                    call.read_elsewhere = True
        if isinstance(out, Tensor):
            self._pending[id(out)] = passing

    def _joined(self, call: ModuleCall, stream: Tensor) -> bool:
        """Whether what a call returned is now added to what its input was made of; noted if so."""
        assert call.entry is not None
        residual = self._made_of(call.entry, stream)
        call.joined = call.joined or residual
        return residual
