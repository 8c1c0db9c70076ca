"""From labelled sizes to the terms of cost models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dms_bench.scaling.cost.model import FACTORS, CostModel, Term
from dms_bench.scaling.modules.blocks import block_of
from dms_bench.scaling.tracing.merge import ElementPairs
from dms_bench.scaling.tracing.records import INNER
from dms_bench.scaling.tracing.resolved import ResolvedTrace

#: A kept size, as (fixed count, {group: multiple}).
_Size = tuple[float, dict[int, float]]


class Terms:
    """Turns labelled sizes into the terms of cost models.

    Args:
        owner: the group of every element, [E].
        groups: number of groups.
        blocks: paths of the removable blocks.
        block_columns: the block that each index along (weight, dimension) belongs to, or -1.
    """

    def __init__(
        self, owner: Tensor, groups: int, blocks: tuple[str, ...], block_columns: dict[tuple[str, int], Tensor]
    ) -> None:
        self.owner, self.groups, self.blocks, self.block_columns = owner, groups, blocks, block_columns
        self.sizes = torch.bincount(owner, minlength=groups)

    def products(self, elements: Tensor) -> list[tuple[_Size, ...]] | None:
        """Kept size of a dimension as a sum of products; None where it is fixed.

        Args:
            elements: outer and inner element of its indices, [2, size].
        """
        both, either = (elements >= 0).all(0), (elements >= 0).any(0)
        if not bool(either.any()):
            return None
        alone = elements.amax(0)[either & ~both]
        products: list[tuple[_Size, ...]] = []
        fixed = float((~either).sum())
        if fixed or len(alone):
            products.append(((fixed, self._multiples(alone)),))
        outer, inner = elements[:, both]
        for group in torch.unique(self.owner[outer]).tolist():
            inside = self._multiples(inner[self.owner[outer] == group])
            size = int(self.sizes[group])
            shares = {inner_group: times / size for inner_group, times in inside.items()}
            products.append(((0.0, {group: 1.0}), (0.0, shares)))
        return products

    def _multiples(self, elements: Tensor) -> dict[int, float]:
        """How many indices each element of a group stands for, such as 49 for channels flattened over 7 x 7."""
        groups, counts = torch.unique(self.owner[elements], return_counts=True)
        return {
            group: times / int(self.sizes[group]) for group, times in zip(groups.tolist(), counts.tolist(), strict=True)
        }

    def terms(
        self, total: float, dims: Sequence[Tensor], module: str, divided: int = 0, columns: Tensor | None = None
    ) -> list[Term]:
        """Return the cost of an operator or parameter, by block where indices of dimension `divided` belong to blocks.

        Args:
            total: the cost at full size.
            dims: outer and inner elements along each dimension, [2, size] each.
            module: where it is.
            divided: which of the dimensions has columns of blocks.
            columns: the block that each of its indices belongs to, or -1.
        """
        for elements in dims:
            total /= elements.size(1)
        if columns is None:
            return self.of_block(total, dims, block_of(module, self.blocks))
        return [
            term
            for block in torch.unique(columns).tolist()
            for term in self.of_block(
                total, [*dims[:divided], dims[divided][:, columns == block], *dims[divided + 1 :]], block
            )
        ]

    def of_block(self, constant: float, dims: Sequence[Tensor], block: int) -> list[Term]:
        """Return a cost per index of `dims` that belongs to one block, or to none (-1)."""
        sums = []
        for elements in dims:
            products = self.products(elements)
            if products is None:
                constant *= elements.size(1)
            else:
                sums.append(products)
        return [self._term(constant, tuple(itertools.chain(*chosen)), block) for chosen in itertools.product(*sums)]

    def _term(self, constant: float, factors: tuple[_Size, ...], block: int) -> Term:
        for fixed, multiples in factors[FACTORS:]:
            constant *= fixed + sum(times * int(self.sizes[group]) for group, times in multiples.items())
        return Term(constant, factors[:FACTORS], block)

    def of_operators(self, pairs: ElementPairs, trace: ResolvedTrace) -> CostModel:
        """Return the MACs of a forward pass; `trace` knows the weights that are summed over."""
        terms = []
        for contraction, factors in pairs.contractions():
            summed = next((index for index, key in enumerate(factors) if key == INNER), -1)
            weight = trace.contracted(contraction)
            columns = self.block_columns.get(weight) if weight is not None and summed >= 0 else None
            terms += self.terms(contraction.macs, list(factors.values()), contraction.module, summed, columns)
        return CostModel(terms, self.groups)

    def of_parameters(self, parameters: dict[str, nn.Parameter], elements: dict[tuple[str, int], Tensor]) -> CostModel:
        """Return the number of parameters, whose dimensions have some elements, [2, size] each."""
        terms = []
        for name, parameter in parameters.items():
            fixed = [torch.full((2, size), -1) for size in parameter.shape]
            dims = [elements.get((name, dim), none) for dim, none in enumerate(fixed)]
            divided = next((dim for dim in range(parameter.dim()) if (name, dim) in self.block_columns), 0)
            columns = self.block_columns.get((name, divided))
            terms += self.terms(float(parameter.numel()), dims, name, divided, columns)
        return CostModel(terms, self.groups)
