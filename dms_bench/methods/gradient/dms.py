"""Differentiable model scaling: width and depth by gradient descent (ICML 2024)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

from dms_bench.methods.base import Keep, SearchContext
from dms_bench.methods.gradient.in_one import InOne, from_large_to_small, unchanged
from dms_bench.methods.gradient.spec import Dms, GradientSpec
from dms_bench.methods.gradient.structure import DmsStructure
from dms_bench.scaling import Architecture, Budget, Supernet
from dms_bench.scaling.structure.relaxation import Relaxation, TopK


class DmsSearch:
    """Trains the supernet and its structure together, then cuts to the budget."""

    spec: GradientSpec

    def __init__(self, spec: GradientSpec) -> None:
        self.spec = spec

    def relaxation(self, context: SearchContext) -> Relaxation:
        """Return what is trained in place of masks."""
        assert isinstance(self.spec, Dms)
        return TopK(
            context.space,
            temperature=self.spec.temperature,
            importance=self.spec.importance,
            block_importance=self.spec.block_importance,
            decay=self.spec.importance_decay,
            normalise=self.spec.normalise,
        )

    def search(self, context: SearchContext) -> Architecture:
        """Search for the budget of `context`."""
        supernet = self._supernet(context)
        structure = DmsStructure(supernet, self.spec, context.budget, trains_weights=context.trial.pipeline != "DMSp-")
        self._fit(context, supernet, structure)
        architecture = supernet.architecture(context.budget)
        self.finish(context, supernet, architecture)
        return architecture

    def search_in_one(self, context: SearchContext, budgets: Sequence[Budget], keep: Keep) -> None:
        """Search for several budgets at once (`in_one`)."""
        order = from_large_to_small(budgets)
        supernet = self._supernet(context)

        def cut(position: int) -> None:
            architecture = supernet.architecture(budgets[order[position]])
            with unchanged(context.model):
                self.finish(context, supernet, architecture)
                keep(order[position], architecture, context.model)

        trains_weights = context.trial.pipeline != "DMSp-"
        ordered = [budgets[position] for position in order]
        structure = InOne(supernet, self.spec, ordered, cut, trains_weights=trains_weights)
        self._fit(context, supernet, structure)
        structure.finish()

    def _supernet(self, context: SearchContext) -> Supernet:
        """Put the relaxation around the network that is searched."""
        relaxation = self.relaxation(context)
        supernet = Supernet(context.model, context.space, relaxation, skip_zeros=self.spec.skip_zeros)
        return supernet.to(context.loop.device)

    def _fit(self, context: SearchContext, supernet: Supernet, structure: DmsStructure) -> None:
        """Train the supernet and its structure."""
        trial, fit = context.trial, context.task.fit
        assert trial.search is not None  # the trial's validation saw to it
        if trial.search.needs_teacher():
            # Masks act inside the supernet alone: weights that are frozen are the original's, and serve both.
            fit = partial(fit, teacher=copy.deepcopy(context.model) if structure.trains_weights else context.model)
        fit(supernet, trial.search, context.loop, structure)

    def finish(self, context: SearchContext, supernet: Supernet, architecture: Architecture) -> None:
        """Do what is left to do to the searched weights before they are cut; most methods leave them as they are."""
