"""What reaches a tensor unchanged: the identity paths of residual blocks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dms_bench.scaling.tracing.operators import RESIDUAL_OPERATORS


class ResidualPaths:
    """Follows tensors, by their ids, through additions, activations, scaling and norms; the tracer keeps them alive."""

    def __init__(self) -> None:
        #: Tensors that reach another unchanged but for additions: id -> ids of ancestors.
        self._added_to: dict[int, frozenset[int]] = {}
        #: Tensors that reach another through norms as well, and those of them to which something was added on the way.
        self._normed: dict[int, tuple[frozenset[int], frozenset[int]]] = {}

    def of(self, tensor: Tensor | None) -> tuple[frozenset[int], frozenset[int]]:
        """Return the ids of what reaches a tensor without norms, and of what does through norms behind an addition."""
        none: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
        return self._added_to.get(id(tensor), frozenset()), self._normed.get(id(tensor), none)[1]

    def track(self, name: str, operands: list[Tensor], out: Any) -> None:
        """An addition keeps both operands as ancestors; what only reshapes, activates or scales keeps its own."""
        operator = name.rstrip("_")
        scales = operator in ("mul", "div") and len(operands) == 1
        if not isinstance(out, Tensor) or not (scales or operator in RESIDUAL_OPERATORS):
            return
        ancestors: frozenset[int] = frozenset()
        for operand in operands if operator == "add" else operands[:1]:
            if operand.shape.numel() == out.shape.numel():
                ancestors |= self._added_to.get(id(operand), frozenset()) | {id(operand)}
                self.reaches(operand, out, added=operator == "add")
        self._added_to[id(out)] = ancestors

    def reaches(self, operand: Tensor, out: Tensor, *, added: bool = False) -> None:
        """Note that what reaches an operand, through norms or not, reaches a result."""
        none: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
        reached, joined = self._normed.get(id(operand), none)
        reached |= {id(operand)}
        others, also_joined = self._normed.get(id(out), none)
        self._normed[id(out)] = (others | reached, also_joined | (reached if added else joined))
