"""From labelled sizes to the terms of cost models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dms_bench.scaling.cost.model import FACTORS, CostModel, Term
from dms_bench.scaling.modules.blocks import block_of
from dms_bench.scaling.tracing.merge import Pairs
from dms_bench.scaling.tracing.reading import Reading
from dms_bench.scaling.tracing.records import INNER

#: A kept size, as (fixed count, {group: multiple}).
_Size = tuple[float, dict[int, float]]


class Terms:
    """Turns labelled sizes into the terms of cost models.

    Args:
        owner: the group of every element, [E].
        groups: number of groups.
        blocks: paths of the removable blocks.
        slots: the block that each index along (weight, dimension) belongs to, or -1.
    """

    def __init__(
        self, owner: Tensor, groups: int, blocks: tuple[str, ...], slots: dict[tuple[str, int], Tensor]
    ) -> None:
        self.owner, self.groups, self.blocks, self.slots = owner, groups, blocks, slots
        self.sizes = torch.bincount(owner, minlength=groups)

    def products(self, own: Tensor) -> list[tuple[_Size, ...]] | None:
        """Kept size of a dimension as a sum of products; None where it is fixed.

        Args:
            own: elements of its indices, [2, size].
        """
        both, one = (own >= 0).all(0), (own >= 0).any(0)
        if not bool(one.any()):
            return None
        alone = own.amax(0)[one & ~both]
        found: list[tuple[_Size, ...]] = []
        fixed = float((~one).sum())
        if fixed or len(alone):
            found.append(((fixed, self._multiples(alone)),))
        outer, inner = own[:, both]
        for group in torch.unique(self.owner[outer]).tolist():
            inside = self._multiples(inner[self.owner[outer] == group])
            every = int(self.sizes[group])
            found.append(((0.0, {group: 1.0}), (0.0, {other: times / every for other, times in inside.items()})))
        return found

    def _multiples(self, elements: Tensor) -> dict[int, float]:
        """How many indices each element of a group stands for, such as 49 for channels flattened over 7 x 7."""
        groups, counts = torch.unique(self.owner[elements], return_counts=True)
        return {
            group: times / int(self.sizes[group]) for group, times in zip(groups.tolist(), counts.tolist(), strict=True)
        }

    def terms(
        self, total: float, dims: Sequence[Tensor], module: str, place: int = 0, owners: Tensor | None = None
    ) -> list[Term]:
        """Return the cost of an operator or parameter, by block where indices of dimension `place` belong to blocks.

        Args:
            total: the cost at full size.
            dims: elements along each dimension, [2, size] each.
            module: where it is.
            place: which of the dimensions has slots.
            owners: the block that each of its indices belongs to, or -1.
        """
        for own in dims:
            total /= own.size(1)
        if owners is None:
            return self.of_block(total, dims, block_of(module, self.blocks))
        return [
            term
            for block in torch.unique(owners).tolist()
            for term in self.of_block(
                total, [*dims[:place], dims[place][:, owners == block], *dims[place + 1 :]], block
            )
        ]

    def of_block(self, constant: float, dims: Sequence[Tensor], block: int) -> list[Term]:
        """Return a cost per index of `dims` that belongs to one block, or to none (-1)."""
        sums = []
        for own in dims:
            products = self.products(own)
            if products is None:
                constant *= own.size(1)
            else:
                sums.append(products)
        return [self._term(constant, tuple(itertools.chain(*chosen)), block) for chosen in itertools.product(*sums)]

    def _term(self, constant: float, factors: tuple[_Size, ...], block: int) -> Term:
        for fixed, multiples in factors[FACTORS:]:
            constant *= fixed + sum(times * int(self.sizes[group]) for group, times in multiples.items())
        return Term(constant, factors[:FACTORS], block)

    def of_operators(self, pairs: Pairs, reading: Reading) -> CostModel:
        """Return the MACs of a forward pass; `reading` knows the weights that are summed over."""
        terms = []
        for contraction, factors in pairs.contractions():
            place = next((at for at, key in enumerate(factors) if key == INNER), -1)
            key = reading.contracted(contraction)
            owners = self.slots.get(key) if key is not None and place >= 0 else None
            terms += self.terms(contraction.macs, list(factors.values()), contraction.module, place, owners)
        return CostModel(terms, self.groups)

    def of_parameters(self, parameters: dict[str, nn.Parameter], elements: dict[tuple[str, int], Tensor]) -> CostModel:
        """Return the number of parameters, whose dimensions have some elements, [2, size] each."""
        terms = []
        for name, parameter in parameters.items():
            fixed = [torch.full((2, size), -1) for size in parameter.shape]
            dims = [elements.get((name, dim), own) for dim, own in enumerate(fixed)]
            place = next((dim for dim in range(parameter.dim()) if (name, dim) in self.slots), 0)
            terms += self.terms(float(parameter.numel()), dims, name, place, self.slots.get((name, place)))
        return CostModel(terms, self.groups)
