"""The gradient methods of table 2 beside DMS: its search loop, another relaxation."""

from __future__ import annotations

from typing import Any

from dms_bench.methods.base import SearchContext
from dms_bench.methods.gradient.dms import DmsSearch
from dms_bench.methods.gradient.spec import GumbelSpec, Mes, Sns
from dms_bench.scaling.structure.gumbel import CountChoice, ElementGates
from dms_bench.scaling.structure.relaxation import Relaxation, StraightThroughTopK


class GetSearch(DmsSearch):
    """Straight-through top-k."""

    def relaxation(self, context: SearchContext) -> Relaxation:
        """Return the hard top-k with its estimated gradient."""
        return StraightThroughTopK(context.space)


class MesSearch(DmsSearch):
    """A Gumbel gate per element."""

    def relaxation(self, context: SearchContext) -> Relaxation:
        """Return the gates, with noise from the trial's seed."""
        assert isinstance(self.spec, Mes)
        return ElementGates(context.space, seed=context.trial.seed, **_gumbel(self.spec))


class SnsSearch(DmsSearch):
    """A Gumbel choice of each unit's count."""

    def relaxation(self, context: SearchContext) -> Relaxation:
        """Return the choices, with noise from the trial's seed."""
        assert isinstance(self.spec, Sns)
        return CountChoice(context.space, seed=context.trial.seed, **_gumbel(self.spec))


def _gumbel(spec: GumbelSpec) -> dict[str, Any]:
    return {"fair": spec.variant == "fair", "temperature": spec.temperature}
