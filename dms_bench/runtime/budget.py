"""From a budget as written to a target in MACs or parameters, and whether it can be met at all."""

from __future__ import annotations

from dms_bench.errors import UserError
from dms_bench.scaling import SearchSpace
from dms_bench.spec.trial import Trial

#: A cut network may cost this much more or less than its target.
TOLERANCE = 0.01


def target_of(trial: Trial, space: SearchSpace) -> float:
    """Return the trial's budget as an absolute count of MACs or parameters.

    Raises:
        UserError: no architecture of the space has that cost.
    """
    kind, target = trial.budget.kind, float(trial.budget.target)
    whole = float(getattr(space, kind))
    if target <= 1:
        target *= whole
    low, high = space.reachable(kind)
    if not low <= target * (1 + TOLERANCE) or not target * (1 - TOLERANCE) <= high:
        raise UserError(
            f"experiment {trial.experiment!r}: budget {trial.budget.label()} is out of reach for "
            f"{trial.supernet.model}: its architectures have {_short(low)} to {_short(high)} {kind} "
            f"({low / whole:.1%} to {high / whole:.0%} of the supernet)"
        )
    return target


def _short(count: float) -> str:
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.3g}{letter}"
    return f"{count:g}"
