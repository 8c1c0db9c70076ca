"""From labelled sizes to the terms of cost models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dms_bench.scaling.cost import FACTORS, CostModel, Term
from dms_bench.scaling.space import block_of
from dms_bench.scaling.trace import Contraction, Trace


class Terms:
    """Turns labelled sizes into the terms of cost models."""

    def __init__(
        self,
        elements: Tensor,
        owner: Tensor,
        groups: int,
        blocks: tuple[str, ...],
        slots: dict[tuple[str, int], Tensor],
    ) -> None:
        self.elements, self.owner, self.groups, self.blocks, self.slots = elements, owner, groups, blocks, slots

    def factor(self, own: Tensor) -> tuple[float, dict[int, float]] | None:
        """Kept size of a dimension with elements `own`; None where it is fixed."""
        searched = own[own >= 0]
        if not len(searched):
            return None
        multiples: dict[int, float] = {}
        for group, times in zip(*torch.unique(self.owner[searched], return_counts=True), strict=True):
            size = int((self.owner == group).sum())
            multiples[int(group)] = float(times) / size  # e.g. 49 for channels flattened over 7 x 7
        return float(len(own) - len(searched)), multiples

    def terms(
        self, constant: float, dims: Sequence[Tensor], module: str, place: int = 0, owners: Tensor | None = None
    ) -> list[Term]:
        """Return the cost of an operator or parameter, by block where indices of dimension `place` belong to blocks.

        Args:
            constant: what the sizes of `dims` are multiplied with.
            dims: elements along each dimension.
            module: where it is.
            place: which of the dimensions has slots.
            owners: the block that each of its indices belongs to, or -1.
        """
        if owners is None:
            return [self.term(constant, dims, block_of(module, self.blocks))]
        return [
            self.term(constant, [*dims[:place], dims[place][owners == block], *dims[place + 1 :]], block)
            for block in torch.unique(owners).tolist()
        ]

    def term(self, constant: float, dims: Sequence[Tensor], block: int) -> Term:
        """Return a cost that belongs to one block, or to none (-1)."""
        factors: list[tuple[float, dict[int, float]]] = []
        for own in dims:
            factor = self.factor(own)
            if factor is None or len(factors) == FACTORS:
                constant *= len(own)
            else:
                factors.append(factor)
        return Term(constant, tuple(factors), block)

    def of_operators(self, trace: Trace, contracted: Callable[[Contraction], tuple[str, int] | None]) -> CostModel:
        """Return the MACs of a forward pass; `contracted` names the weight and dimension that is summed over."""
        terms = []
        for contraction in trace.contractions:
            dims = [self.elements[labels] for labels in contraction.factors]
            place = next((at for at, own in enumerate(contraction.factors) if own is contraction.contracted), -1)
            key = contracted(contraction)
            owners = self.slots.get(key) if key is not None and place >= 0 else None
            terms += self.terms(contraction.constant, dims, contraction.module, place, owners)
        return CostModel(terms, self.groups)

    def of_parameters(self, parameters: dict[str, nn.Parameter], slices: dict[tuple[str, int], Tensor]) -> CostModel:
        """Return the number of parameters, whose dimensions have the elements of `slices`."""
        terms = []
        for name, parameter in parameters.items():
            dims = [slices.get((name, dim), torch.full((size,), -1)) for dim, size in enumerate(parameter.shape)]
            place = next((dim for dim in range(parameter.dim()) if (name, dim) in self.slots), 0)
            terms += self.terms(1.0, dims, name, place, self.slots.get((name, place)))
        return CostModel(terms, self.groups)
