"""The area under a method's Pareto front: what it scores within a cost, averaged over all costs up to a bound.

The front of an experiment is what a method reaches at its budgets; below its cheapest point it has nothing, 0. Costs
are shares: of the supernet's MACs or latency, or of twice the MACs of the experiment's costliest search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dms_bench.report.board import Row
from dms_bench.report.summary.tasks import Complete

#: Share of a bound that a row costs, None where that was not measured; the bound is of the experiment's rows.
Cost = Callable[[Row, Sequence[Row]], float | None]


def macs(row: Row, rows: Sequence[Row]) -> float | None:
    """Return a network's MACs as a share of its supernet's."""
    return _share(row.macs, row.supernet_macs)


def latency(row: Row, rows: Sequence[Row]) -> float | None:
    """Return a network's latency as a share of its supernet's on the same device."""
    return _share(row.latency_ms, row.supernet_latency_ms)


def search(row: Row, rows: Sequence[Row]) -> float | None:
    """Return the MACs of a search as a share of twice those of the costliest of its experiment."""
    return _share(row.search_training_macs, 2 * max((other.search_training_macs or 0.0 for other in rows), default=0.0))


COSTS: Mapping[str, Cost] = {"MACs": macs, "latency": latency, "search MACs": search}


def area(points: Sequence[tuple[float, float]]) -> float:
    """Return the area under the best score within a cost, from cost 0 to 1.

    Args:
        points: (cost, score); those that cost 1 or more add nothing.
    """
    total, best, start = 0.0, 0.0, 0.0
    for cost, score in sorted(points):
        if cost >= 1:
            break
        total += best * (cost - start)
        start, best = cost, max(best, score)
    return total + best * (1 - start)


def areas(block: Complete, scores: Sequence[Any], cost: Cost) -> tuple[list[float], int] | None:
    """Return the mean area of every method over experiments, and their number; None where none has all costs.

    Args:
        block: tasks and methods.
        scores: (methods, seeds) of each task.
        cost: what is drawn along.
    """
    experiments: dict[tuple[str, ...], list[int]] = {}
    for index, task in enumerate(block.tasks):
        experiments.setdefault(task.experiment, []).append(index)
    totals, counted = [0.0] * len(block.methods), 0
    for tasks in experiments.values():
        rows = [[block.tasks[index].rows[method] for index in tasks] for method in block.methods]
        every = [row for own in rows for row in own]
        costs = [[cost(row, every) for row in own] for own in rows]
        if any(share is None for own in costs for share in own):
            continue
        counted += 1
        for method, own in enumerate(costs):
            points = [
                (share or 0.0, float(scores[index][method].mean())) for share, index in zip(own, tasks, strict=True)
            ]
            totals[method] += area(points)
    return ([total / counted for total in totals], counted) if counted else None


def _share(amount: float | None, whole: float | None) -> float | None:
    return amount / whole if amount is not None and whole else None
