"""What an integer program chooses from: a level of every width unit, and which blocks stay.

Shape legend:
    V: variables: levels of all units, then blocks
    L: levels of all units
    E: elements of all searched units
    G: width groups
    B: removable blocks of all stages
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dms_bench.methods.discrete.units import WidthUnit
from dms_bench.scaling import SearchSpace

#: One number per variable, [V]; of a choice, 1 for what it takes and 0 for all else.
Variables = NDArray[np.float64]


@dataclass(frozen=True)
class Choices:
    """The variables, and the sizes that they stand for.

    Attributes:
        space: the search space.
        units: of its widths, with their levels.
    """

    space: SearchSpace
    units: list[WidthUnit]

    @cached_property
    def levels(self) -> int:
        """Number of levels of all units, L; blocks come after them."""
        return sum(len(unit.counts) for unit in self.units)

    @cached_property
    def runs(self) -> list[tuple[slice, int, int]]:
        """Variables of each unit and of each stage, and the fewest and the most of them that are taken."""
        sizes = [(len(unit.counts), 1, 1) for unit in self.units]
        groups, units = len(self.space.groups), self.space.units
        sizes += zip(units.sizes[groups:], units.minimum[groups:], units.maximum[groups:], strict=True)
        starts = [sum(size for size, _, _ in sizes[:run]) for run in range(len(sizes))]
        return [(slice(start, start + size), low, high) for start, (size, low, high) in zip(starts, sizes, strict=True)]

    @cached_property
    def counts(self) -> Tensor:
        """Elements that each level keeps of its own groups, 0 of others, [L, G]."""
        counts = torch.zeros(self.levels, len(self.space.groups), dtype=torch.float64)
        for unit, (run, _, _) in zip(self.units, self.runs, strict=False):
            counts[run, list(unit.groups)] = torch.tensor(unit.counts, dtype=torch.float64)[:, None]
        return counts

    def size(self, choice: Variables) -> tuple[Tensor, Tensor]:
        """Return what costs are computed from: kept elements [G] and blocks [B]."""
        taken = torch.from_numpy(choice)
        return taken[: self.levels] @ self.counts, taken[self.levels :]

    def below(self, mask: Tensor) -> Variables:
        """Return the choice with the blocks of a binary mask [E] and the largest levels that are within its widths."""
        kept = self.space.kept_elements(mask)
        choice = np.zeros(self.levels + self.space.units.total - self.space.width_elements)
        for unit, (run, _, _) in zip(self.units, self.runs, strict=False):
            most = min(int(kept[group]) for group in unit.groups)
            choice[run.start + sum(count <= most for count in unit.counts[1:])] = 1
        choice[self.levels :] = mask[self.space.width_elements :].numpy()
        return choice

    def near(self, choice: Variables, reach: int) -> Variables:
        """Return 1 for levels that are at most `reach` away from those of a choice, and for all blocks."""
        near = np.ones(len(choice))
        for run, _, _ in self.runs[: len(self.units)]:
            places = np.arange(run.stop - run.start)
            near[run] = abs(places - choice[run].argmax()) <= reach
        return near
