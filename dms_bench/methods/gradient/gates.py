"""Rivals of DMS since its publication: its search loop, gates of other kinds."""

from __future__ import annotations

from dms_bench.methods.base import SearchContext
from dms_bench.methods.gradient.dms import DmsSearch
from dms_bench.methods.gradient.spec import LapSum, Router
from dms_bench.scaling import Architecture, Supernet
from dms_bench.scaling.structure.hard_concrete import HardConcrete
from dms_bench.scaling.structure.lapsum import LapSum as SoftTopK
from dms_bench.scaling.structure.relaxation import Relaxation
from dms_bench.scaling.structure.retention import RetentionGates
from dms_bench.scaling.structure.router import Router as LevelRouter


class L0Search(DmsSearch):
    """Hard-concrete gates."""

    def relaxation(self, context: SearchContext) -> Relaxation:
        """Return the gates, with noise from the trial's seed."""
        return HardConcrete(context.space, seed=context.trial.seed)


class DdpSearch(DmsSearch):
    """Deterministic gates, which the searched weights take up in the end."""

    def relaxation(self, context: SearchContext) -> Relaxation:
        """Return the gates."""
        return RetentionGates(context.model, context.space)

    def finish(self, context: SearchContext, supernet: Supernet, architecture: Architecture) -> None:
        """Multiply the gates of what is kept into the weights."""
        assert isinstance(supernet.relaxation, RetentionGates)
        supernet.relaxation.fold(context.model, context.space, context.space.mask(architecture))


class LapSumSearch(DmsSearch):
    """A soft top-k of learnt scores."""

    def relaxation(self, context: SearchContext) -> Relaxation:
        """Return the soft top-k."""
        assert isinstance(self.spec, LapSum)
        return SoftTopK(context.space, alpha=self.spec.alpha)


class RouterSearch(DmsSearch):
    """A learnt choice among levels."""

    def relaxation(self, context: SearchContext) -> Relaxation:
        """Return the router, with weights and noise from the trial's seed."""
        assert isinstance(self.spec, Router)
        budgets = max(1, len(self.spec.searched_budgets))
        return LevelRouter(context.space, seed=context.trial.seed, levels=self.spec.levels, budgets=budgets)
