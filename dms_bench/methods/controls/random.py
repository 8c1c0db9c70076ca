"""The control: a random architecture of the same space at the same budget."""

from __future__ import annotations

import torch

from dms_bench.methods.base import SearchContext
from dms_bench.methods.controls.spec import Random
from dms_bench.scaling import Architecture
from dms_bench.scaling.fit import fit_to_budget


class RandomArchitecture:
    """Draws every width and depth independently and scales the widths to the budget.

    Kept shares are uniform in (0, 1] per group, numbers of blocks uniform per stage, and which
    elements stay is random; one architecture per seed.
    """

    def __init__(self, spec: Random) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return one random architecture at the budget."""
        space, generator = context.space, context.generator()
        counts = []
        for most, low in zip(space.units.maximum, space.units.minimum, strict=True):
            share = torch.rand(1, generator=generator).item()
            counts.append(low + share * (most - low))
        importance = torch.rand(space.units.total, generator=generator)
        mask = fit_to_budget(space, torch.tensor(counts), importance, context.budget)
        return space.architecture(mask)
