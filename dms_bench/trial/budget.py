"""From a budget as written to absolute targets, and whether they can be met at all."""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import lru_cache
from typing import cast

from torch import Tensor

from dms_bench.config.budget import LatencyBudget, MemoryBudget, constraints_of, latency_of
from dms_bench.config.plugins import TASKS, parse_plugin
from dms_bench.config.supernet import SupernetSpec
from dms_bench.config.task import TaskSpec
from dms_bench.config.trial import Trial
from dms_bench.errors import UserError
from dms_bench.scaling import Budget, Constraint, LatencyModel, SearchSpace, budget_of
from dms_bench.scaling.latency.whole import WholeLatency
from dms_bench.scaling.memory import memory_of
from dms_bench.tasks import Caches, make_task
from dms_bench.trial.spaces import untrained

#: A cut network may cost this much more or less than its target.
TOLERANCE = 0.01
#: The same of a latency that is measured in a runtime, which no two measurements agree about to the per cent.
MEASURED_TOLERANCE = 0.1


def needs_latency(trial: Trial) -> bool:
    """Tell whether the trial's budget bounds the latency."""
    return latency_of(trial.budget) is not None


def resolve_budget(trial: Trial, space: SearchSpace, latency: LatencyModel | WholeLatency | None = None) -> Budget:
    """Return the trial's budget in absolute numbers: MACs, parameters, milliseconds, bytes.

    Args:
        trial: whose budget.
        space: its search space.
        latency: the model of the supernet's latency, where the budget bounds it.

    Raises:
        UserError: no architecture of the space has that cost.
    """
    constraints: list[Constraint] = []
    for written in constraints_of(trial.budget):
        if isinstance(written, MemoryBudget):
            per_number = written.bytes_per_cached * written.context * written.batch
            rows = _cached_rows(trial.task.model_dump_json(), untrained(trial.supernet).model_dump_json())
            cost = memory_of(space, rows, written.bytes_per_weight, per_number)
            constraints += budget_of(space, memory=(cost, written.target)).constraints
        elif not isinstance(written, LatencyBudget):
            constraints += budget_of(space, **{written.kind: written.target}).constraints
        elif latency is not None:
            predicted = space.cost_of(latency, space.full())
            whole = latency.whole_ms if isinstance(latency, WholeLatency) else predicted
            target = 1e3 * written.seconds if written.seconds else whole * (written.share or 1)
            constraints.append(Constraint(written.kind, latency, target, whole))
    for bound in constraints if not trial.method.shrinks_pictures else ():
        _check(trial, space, bound)
    return Budget(tuple(constraints))


@lru_cache(maxsize=4)
def _cached_rows(task_json: str, supernet_json: str) -> dict[str, Tensor]:
    """Return which outputs of the supernet's weights go into its cache; it depends on the structure alone."""
    spec = cast(TaskSpec, parse_plugin(TASKS, json.loads(task_json)))
    task = make_task(spec, 0)
    return cast(Caches, task).cached_rows(task.build(SupernetSpec.model_validate_json(supernet_json)))


def check_counted(trial: Trial, space: SearchSpace) -> None:
    """Make sure that what is counted can be met; a latency is known only where the trial runs.

    Raises:
        UserError: no architecture of the space has that cost.
    """
    resolve_budget(trial, space)


def missed(costs: dict[str, float], budget: Budget, *, coarse: bool = False, measured: Collection[str] = ()) -> bool:
    """Tell whether a constraint is exceeded, or all are left unused, by more than the tolerance.

    Args:
        costs: of the cut network, by the constraints' names.
        budget: what was to be met.
        coarse: there is nothing between one size and the next, so that something may be left unused.
        measured: names of the constraints whose costs are no counts or predictions, but measurements.
    """
    over = [
        (costs[bound.name] / bound.target - 1, MEASURED_TOLERANCE if bound.name in measured else TOLERANCE)
        for bound in budget.constraints
    ]
    return any(load > most for load, most in over) or (not coarse and all(-load > most for load, most in over))


def _check(trial: Trial, space: SearchSpace, bound: Constraint) -> None:
    if not bound.whole:
        raise UserError(f"supernet.model {trial.supernet.model!r} has no {bound.name} to search")
    low, high = space.reachable(bound.cost)
    if not low <= bound.target * (1 + TOLERANCE) or not bound.target * (1 - TOLERANCE) <= high:
        unit = {"latency": "ms latency", "memory": "bytes of memory"}.get(bound.name, bound.name)
        raise UserError(
            f"experiment {trial.experiment!r}: budget {trial.budget.label()} is out of reach for "
            f"{trial.supernet.label()}: its architectures have {_short(low)} to {_short(high)} {unit} "
            f"({low / bound.whole:.1%} to {high / bound.whole:.0%} of the supernet)"
        )


def _short(count: float) -> str:
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.3g}{letter}"
    return f"{count:.3g}"
