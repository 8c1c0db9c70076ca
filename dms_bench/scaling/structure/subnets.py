"""Random subnets of a supernet, and a relaxation that trains one of them on every step.

"Single-path uniform sampling", as AutoFormer and once-for-all networks train theirs: subnets share the
weights of the leading elements of every unit and of the leading blocks of every stage.

Shape legend:
    U: searched units (width groups, then stages)
    E: elements of all units
    G: width groups
    B: removable blocks of all stages
"""

from __future__ import annotations

import torch
from torch import Tensor

from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.space.units import Units
from dms_bench.scaling.structure.relaxation import Relaxation


def random_counts(units: Units, generator: torch.Generator) -> Tensor:
    """Draw how many elements each unit keeps, uniformly from its minimum to its maximum, [U]."""
    low, high = torch.tensor(units.minimum), torch.tensor(units.maximum)
    shares = torch.rand(len(units.sizes), generator=generator, dtype=torch.double)
    return low + (shares * (high - low + 1)).long()


def leading(units: Units, counts: Tensor) -> Tensor:
    """Return the binary mask of the first elements of each unit, as many as `counts` [U] says, [E]."""
    owner = units.owner
    positions = torch.arange(units.total) - torch.tensor(units.starts)[owner]
    return (positions < counts[owner]).float()


class RandomPaths(Relaxation):
    """A random subnet per step: nothing to train, so that the weights alone are trained.

    In eval mode the largest subnet runs. Draws follow from the seed and the number of steps, and are part of the
    state: the same on all workers and after a resume.

    Args:
        space: the search space.
        seed: of the draws.
    """

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        super().__init__(space)
        self.units, self.seed = space.units, seed
        self.register_buffer("draws", torch.zeros((), dtype=torch.long))
        self.register_buffer("path", torch.ones(space.units.total))
        largest = leading(space.units, torch.tensor(space.units.maximum))
        self.register_buffer("_largest", largest, persistent=False)
        self.draws: Tensor
        self.path: Tensor
        self._largest: Tensor
        self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.draws))
        self.path.copy_(leading(self.units, random_counts(self.units, generator)))
        self.draws.add_(1)

    def soft_mask(self) -> Tensor:
        """Return the present subnet's mask; in eval mode the largest one's, [E]."""
        return self.hard_mask()

    def hard_mask(self) -> Tensor:
        """Return the same, [E]."""
        return self.path.clone() if self.training else self._largest

    def soft_size(self) -> tuple[Tensor, Tensor]:
        """Return the present subnet's size: kept elements [G] and masks of blocks [B]."""
        mask = self.hard_mask()
        return self._counts(mask)[: self.groups], mask[self.width_elements :]

    def proposal(self) -> tuple[Tensor, Tensor]:
        """Return the largest subnet's counts [U]; leading elements matter most, [E]."""
        return self._counts(self._largest).cpu(), -torch.arange(self.units.total, dtype=torch.float32)

    def update(self, mask: Tensor, gradient: Tensor | None) -> None:
        """Draw the next step's subnet."""
        self._draw()
