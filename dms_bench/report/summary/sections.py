"""The parts of a summary: what each says of every method, as numbers, table and figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dms_bench.report.format import MISSING, p_value
from dms_bench.report.summary import plots
from dms_bench.report.summary.anytime import Anytime, at
from dms_bench.report.summary.areas import COSTS, areas
from dms_bench.report.summary.bootstrap import Interval, improvements, interquartile_means
from dms_bench.report.summary.profiles import profile, shown, thresholds
from dms_bench.report.summary.ranks import Ranks, order, ranks
from dms_bench.report.summary.tasks import Complete

#: Fewer tasks than this are too few for the normal distribution of rank differences.
_ENOUGH_TASKS = 5
#: Shares of the costliest search at which anytime curves are read.
_COSTS = (0.01, 0.1, 0.5, 1.0)


@dataclass(frozen=True)
class Section:
    """One way to look at all methods."""

    key: str
    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    #: Method -> quantity -> value, None where there is none.
    numbers: dict[str, dict[str, float | str | None]]
    notes: tuple[str, ...]
    #: SVG.
    figures: dict[str, str]


def average_ranks(block: Complete) -> Section:
    """Rank the methods' means in every task."""
    import numpy

    found = ranks(numpy.stack([own.mean(axis=1) for own in block.signed], axis=1))
    by_rank = order(found.mean)
    controls = [(name, place) for name, place in (("dms", block.dms), ("random", block.random)) if place is not None]
    against = {name: found.against(place) for name, place in controls}
    columns = ["method", "rank", "group", *(f"p, {name}" for name in against)]
    lines = [
        (block.methods[method], f"{found.mean[method]:.2f}", found.letters[method] or MISSING,
         *(_p(own[method]) for own in against.values()))
        for method in by_rank
    ]  # fmt: skip
    numbers: dict[str, dict[str, float | str | None]] = {
        name: {
            "rank": found.mean[method],
            "group": found.letters[method],
            **{f"p_{control}": own[method] for control, own in against.items()},
        }
        for method, name in enumerate(block.methods)
    }
    entries = [(block.methods[method], found.mean[method], found.letters[method]) for method in by_rank]
    figure = plots.critical(entries, found.critical)
    return Section(
        "ranks", "Average ranks", tuple(columns), tuple(lines), numbers, _rank_notes(found), {"ranks": figure}
    )


def _rank_notes(found: Ranks) -> tuple[str, ...]:
    if found.critical is None:
        return ("A single task: its ranks differ by chance, and are not tested.",)
    notes = [
        f"group: methods that share a letter differ by less than Nemenyi's critical difference at 5 %, "
        f"{found.critical:.2f} ranks for {len(found.mean)} methods and {found.tasks} tasks. p: Holm's, against one. "
        "Budgets and experiments count as independent tasks"
        + ("." if found.tasks >= _ENOUGH_TASKS else "; with so few of them both tests are approximate.")
    ]
    if found.friedman is not None:
        notes.append(f"Friedman's test that all are equal: {p_value(found.friedman)}.")
    return tuple(notes)


def interquartile(block: Complete, scores: Sequence[Any], explained: str) -> Section:
    """Average the middle half of all scores."""
    note = f"{explained}. Mean of the middle half of all runs; {_BOOTSTRAP}"
    return _dots("iqm", "Interquartile mean", "IQM", block, interquartile_means(scores), (note,), None)


def improvement(block: Complete, control: int) -> Section:
    """Tell how often each method is ahead of one."""
    name = block.methods[control]
    note = f"Probability that a run is ahead of one of {name}, ties as half, mean over tasks; {_BOOTSTRAP}"
    kind = block.tasks[0].rows[name].kind
    found = improvements(block.signed, control)
    title = f"Improvement over {name}"
    return _dots(f"improvement_{kind}", title, f"P(> {name})", block, found, (note,), 0.5, skip=control)


_BOOTSTRAP = "95 % each, by a bootstrap of seeds within tasks: too narrow for few seeds, not corrected for how many."


def _dots(
    key: str,
    title: str,
    heading: str,
    block: Complete,
    found: Sequence[Interval],
    notes: tuple[str, ...],
    reference: float | None,
    skip: int | None = None,
) -> Section:
    by_value = sorted((m for m in range(len(found)) if m != skip), key=lambda method: -found[method].value)
    lines = tuple((block.methods[m], f"{found[m].value:.3f}", *map(_number, found[m][1:])) for m in by_value)
    numbers: dict[str, dict[str, float | str | None]] = {
        block.methods[m]: {"value": found[m].value, "low": found[m].low, "high": found[m].high} for m in by_value
    }
    figure = plots.dots([(block.methods[m], found[m]) for m in by_value], title, reference)
    return Section(key, title, ("method", heading, "low", "high"), lines, numbers, notes, {key: figure})


def performance(block: Complete, scores: Sequence[Any]) -> Section:
    """Tell in what share of its runs each method is above a score."""
    marks, every = shown(scores), thresholds(scores)
    table = {name: profile(scores, method, marks) for method, name in enumerate(block.methods)}
    by_value = sorted(table, key=lambda name: -sum(table[name]))
    lines = tuple((name, *(f"{share:.2f}" for share in table[name])) for name in by_value)
    numbers: dict[str, dict[str, float | str | None]] = {
        name: {f"above {mark:.4g}": share for mark, share in zip(marks, table[name], strict=True)} for name in by_value
    }
    start = every[0] - 0.02 * (every[-1] - every[0] or 1.0)
    curves = {
        name: [(start, 1.0), *zip(every, profile(scores, block.methods.index(name), every), strict=True)]
        for name in by_value
    }
    figure = plots.curves(curves, "score", "share of runs above it", every[-1])
    columns = ("method", *(f"> {mark:.3g}" for mark in marks))
    note = "Share of runs with a score above each threshold, mean over tasks."
    return Section("profiles", "Performance profiles", columns, lines, numbers, (note,), {"profiles": figure})


def pareto_areas(block: Complete, scores: Sequence[Any]) -> Section | None:
    """Average what each method scores within a cost; None where no cost is known."""
    found = {name: measured for name, cost in COSTS.items() if (measured := areas(block, scores, cost)) is not None}
    if not found:
        return None
    first = next(iter(found.values()))[0]
    by_value = sorted(range(len(block.methods)), key=lambda method: -first[method])
    lines = tuple((block.methods[m], *(f"{own[m]:.3f}" for own, _ in found.values())) for m in by_value)
    numbers: dict[str, dict[str, float | str | None]] = {
        block.methods[m]: {name: own[m] for name, (own, _) in found.items()} for m in by_value
    }
    experiments = len({task.experiment for task in block.tasks})
    counted = ", ".join(f"{name} of {number}" for name, (_, number) in found.items())
    notes = (
        "Area under the best score within a cost, 0 where there is no network yet. Costs are shares of the supernet's, "
        "or of twice the MACs of the experiment's costliest search.",
        f"Experiments that have all costs, of {experiments}: {counted}.",
    )
    figures = {
        f"area_{name.replace(' ', '_').lower()}": plots.dots(
            [(block.methods[m], Interval(own[m], None, None)) for m in sorted(by_value, key=lambda m: -own[m])],
            f"area under the front: score against {name}",
        )
        for name, (own, _) in found.items()
    }
    return Section("areas", "Pareto area", ("method", *found), lines, numbers, notes, figures)


def best_so_far(found: Anytime) -> Section:
    """Read every anytime curve at some costs."""
    by_value = sorted(found.curves, key=lambda name: -found.curves[name][-1][1])
    table = {name: [at(found.curves[name], cost) for cost in _COSTS] for name in by_value}
    lines = tuple((name, *map(_number, table[name])) for name in by_value)
    numbers: dict[str, dict[str, float | str | None]] = {
        name: {f"at {cost:g}": score for cost, score in zip(_COSTS, table[name], strict=True)} for name in by_value
    }
    notes = [
        f"Best score so far (chosen on validation) by the MACs spent on search, as a share of the costliest method's "
        f"in a task; {found.tasks} tasks. Settings of a method are tried from the cheapest on, and their costs add up."
    ]
    if found.left_out:
        notes.append(f"Left out, as they lack some of these tasks: {', '.join(found.left_out)}.")
    curves = {name: found.curves[name] for name in by_value}
    figure = plots.curves(curves, "MACs of searches so far, share of the costliest", "best score so far", 1.0)
    columns = ("method", *(f"at {cost:g}" for cost in _COSTS))
    return Section("anytime", "Anytime", columns, lines, numbers, tuple(notes), {"anytime": figure})


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def _p(value: float | None) -> str:
    return MISSING if value is None else p_value(value).removeprefix("p ").removeprefix("= ")
