"""One width ratio for the whole network, full depth: what one does without a search."""

from __future__ import annotations

import torch

from dms_bench.methods.base import SearchContext
from dms_bench.methods.controls.spec import Uniform
from dms_bench.scaling import Architecture, weight_norms
from dms_bench.scaling.fit import fit_to_budget


class UniformSearch:
    """Keeps the same share of every width group; of each, the elements with the largest weights.

    Which elements stay matters only where weights are inherited (DMSp and DMSp-).
    """

    def __init__(self, spec: Uniform) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the uniform architecture at the budget."""
        space = context.space
        counts = torch.tensor(space.units.sizes, dtype=torch.float32)
        importance = weight_norms(context.model, space)
        mask = fit_to_budget(space, counts, importance, context.budget)
        return space.architecture(mask)
