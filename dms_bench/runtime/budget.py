"""From a budget as written to absolute targets, and whether they can be met at all."""

from __future__ import annotations

from dms_bench.errors import UserError
from dms_bench.scaling import Budget, SearchSpace, budget_of
from dms_bench.spec.trial import Trial

#: A cut network may cost this much more or less than its target.
TOLERANCE = 0.01


def resolve_budget(trial: Trial, space: SearchSpace) -> Budget:
    """Return the trial's budget in absolute numbers.

    Raises:
        UserError: no architecture of the space has that cost.
    """
    budget = budget_of(space, **{trial.budget.kind: float(trial.budget.target)})
    for bound in budget.constraints:
        low, high = space.reachable(bound.cost)
        if not low <= bound.target * (1 + TOLERANCE) or not bound.target * (1 - TOLERANCE) <= high:
            raise UserError(
                f"experiment {trial.experiment!r}: budget {trial.budget.label()} is out of reach for "
                f"{trial.supernet.model}: its architectures have {_short(low)} to {_short(high)} {bound.name} "
                f"({low / bound.whole:.1%} to {high / bound.whole:.0%} of the supernet)"
            )
    return budget


def _short(count: float) -> str:
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.3g}{letter}"
    return f"{count:g}"
