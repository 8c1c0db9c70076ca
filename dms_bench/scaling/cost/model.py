"""MACs and parameters as a function of how many elements stay.

Every convolution, matrix product and parameter costs a constant times, at most three times, a kept size: a
fixed count plus a whole multiple of each group's kept elements. A dimension along which heads lie whose own size
is searched is the product of two such.

Shape legend:
    T: terms (operators or parameters)
    F: factors of a term, 3
    G: width groups
    B: removable blocks, of all stages
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Resource = Literal["macs", "params"]

FACTORS = 3

_Factors = tuple[tuple[float, tuple[tuple[int, float], ...]], ...]


class Cost(Protocol):
    """What an architecture costs, differentiable in what it keeps."""

    def __call__(self, kept: Tensor, blocks: Tensor) -> Tensor:
        """Return the cost, [...], from kept elements per group [..., G] and the blocks' masks [B]."""

    def to(self, device: torch.device) -> Cost:
        """Return the cost on a device."""


@dataclass(frozen=True)
class Term:
    """A cost before it is stacked with others.

    Attributes:
        constant: what the factors multiply.
        factors: kept sizes, each as (fixed count, {group: multiple}).
        block: index of the removable block that it belongs to, or -1.
    """

    constant: float
    factors: tuple[tuple[float, dict[int, float]], ...]
    block: int = -1


class CostModel:
    """The sum of all terms, differentiable in the kept counts; exact in double precision."""

    def __init__(self, terms: Sequence[Term], groups: int) -> None:
        merged: dict[tuple[_Factors, int], float] = {}
        for term in terms:
            key = tuple((fixed, tuple(sorted(multiples.items()))) for fixed, multiples in term.factors)
            merged[key, term.block] = merged.get((key, term.block), 0.0) + term.constant
        self.constant = torch.tensor(list(merged.values()), dtype=torch.float64)
        self.fixed = torch.ones(FACTORS, len(merged), dtype=torch.float64)
        self.multiples = torch.zeros(FACTORS, len(merged), groups, dtype=torch.float64)
        self.block = torch.tensor([key[1] for key in merged], dtype=torch.long)
        for row, (factors, _) in enumerate(merged):
            for factor, (fixed, multiples) in enumerate(factors):
                self.fixed[factor, row] = fixed
                for group, multiple in multiples:
                    self.multiples[factor, row, group] = multiple

    def restrict(self, groups: Tensor, sizes: Tensor, blocks: Tensor) -> CostModel:
        """Return the model in which only some groups and blocks may still shrink.

        Args:
            groups: which groups stay searched, bool [G].
            sizes: full size of each group, [G].
            blocks: which blocks stay searched, bool [B].
        """
        smaller = CostModel([], int(groups.sum()))
        smaller.constant = self.constant
        smaller.fixed = self.fixed + self.multiples @ (sizes * ~groups)
        smaller.multiples = self.multiples[:, :, groups]
        renumbered = torch.where(blocks, blocks.long().cumsum(0) - 1, torch.full_like(blocks.long(), -1))
        smaller.block = torch.cat([renumbered, torch.tensor([-1])])[self.block]
        return smaller

    def to(self, device: torch.device) -> CostModel:
        """Return the model on a device."""
        moved = copy.copy(self)
        for name in ("constant", "fixed", "multiples", "block"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def __call__(self, kept: Tensor, blocks: Tensor) -> Tensor:
        """Return the cost.

        Args:
            kept: kept elements of each group, [..., G]; the cost is per leading index.
            blocks: 1 for blocks that stay, 0 for those that go (soft masks in between), [B].
        """
        return self.terms(kept, blocks).sum(-1)

    def terms(self, kept: Tensor, blocks: Tensor) -> Tensor:
        """Return what each term adds to the cost, [..., T]; arguments as above."""
        sizes = self.fixed + torch.einsum("ftg,...g->...ft", self.multiples, kept.double())  # [..., F, T]
        stays = torch.cat([blocks.double(), blocks.new_ones(1, dtype=torch.float64)])[self.block]  # [T]
        return self.constant * sizes.prod(-2) * stays
