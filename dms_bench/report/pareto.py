"""What a method loses against what its search computes: one panel per comparison and budget.

Lost is the difference of means between the supernet, not cut, and the method's network; computed are the MACs of the
search, backward passes included. Searches that compute nothing stand at the left, before the axis breaks. The line is
the Pareto front of the means: to lose less than a point on it, a search has to compute more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from dms_bench.errors import UserError
from dms_bench.report import format as fmt
from dms_bench.report.board import CEILING, UNCUT, Row
from dms_bench.report.layout import blocks
from dms_bench.report.paper.labels import Label, place_labels

#: By the last of what a search uses, in the order of the legend.
_COLOURS = {
    "nothing": "#7f7f7f",
    "weights": "#e69f00",
    "data": "#009e73",
    "gradients": "#d55e00",
    "training": "#0072b2",
    "validation": "#cc79a7",
}
_INK, _GRID = "#1d2430", "#e8ebef"
#: Panels side by side at most.
_ACROSS = 2


def draw_pareto(rows: Sequence[Row], title: str) -> Any:
    """Return the figure (matplotlib's).

    Args:
        rows: of a leaderboard.
        title: heading.

    Raises:
        UserError: no comparison has a measured supernet and searches whose computations were counted.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [panel for block in blocks(rows) for panel in _panels(block.title, block.rows)]
    if not panels:
        raise UserError(
            "nothing to draw: a comparison needs a finished 'supernet', which says what is lost, and searches whose "
            "computations were counted (run by this version)"
        )
    across = min(_ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(7.6 * across, 0.8 + 5.2 * down), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = [axis for line in figure.subplots(down, across, squeeze=False) for axis in line]
    drawn = [_draw(axis, *panel) for axis, panel in zip(axes, panels, strict=False)]
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(title, x=0.012, ha="left", fontsize=14, fontweight="bold", color=_INK)
    figure.legend(handles=_legend(rows), loc="outside lower left", ncols=3 * across, frameon=False, fontsize=9)
    figure.draw_without_rendering()  # names are placed in the final layout
    for axis, labels in zip(axes, drawn, strict=False):
        place_labels(axis, labels, [(label.x, label.y) for label in labels])
    return figure


def _panels(title: str, rows: Sequence[Row]) -> list[tuple[str, Row, list[Row]]]:
    """Return title, supernet and methods for each budget that has any."""
    supernet = next((row for row in rows if row.kind == CEILING and row.mean is not None), None)
    if supernet is None:
        return []
    found = []
    for budget, members in groupby((row for row in rows if row.kind not in UNCUT), key=lambda row: row.budget):
        counted = [row for row in members if row.mean is not None and row.search_training_macs is not None]
        if counted:
            found.append((f"{title}\n{budget}", supernet, counted))
    return found


def _draw(axes: Any, title: str, supernet: Row, rows: Sequence[Row]) -> list[Label]:
    sign = 1 if supernet.higher_is_better else -1
    least = min((row.search_training_macs for row in rows if row.search_training_macs), default=1.0)
    nothing = least / 10
    labels = []
    for row in rows:
        x = row.search_training_macs or nothing
        y = sign * ((supernet.mean or 0.0) - (row.mean or 0.0))
        colour = _colour(row)
        axes.errorbar(x, y, yerr=row.ci95 or 0.0, fmt="o", color=colour, ms=6, lw=1, alpha=0.85, zorder=3)
        labels.append(Label(row.method, x, y, colour))
    # A few wide intervals must not take the room in which points are told apart.
    halves = sorted(row.ci95 or 0.0 for row in rows)
    beyond = halves[len(halves) // 2] + 0.05 * (max(label.y for label in labels) - min(label.y for label in labels))
    axes.set_ylim(min(label.y for label in labels) - beyond - 1e-9, max(label.y for label in labels) + beyond + 1e-9)
    front = pareto_front([(label.x, label.y) for label in labels])
    axes.step([x for x, _ in front], [y for _, y in front], where="post", color=_INK, lw=1.2, ls=(0, (4, 3)), zorder=2)
    axes.set_xscale("log")
    if any(not row.search_training_macs for row in rows):
        axes.axvline(least / 3, color=_GRID, lw=6, zorder=1)
        _without_numbers_below(axes, least / 3)
        axes.text(nothing, 1.0, "nothing", transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=8)
    unit = f" [{supernet.unit}]" if supernet.unit else ""
    axes.set_xlabel("MACs of the search, backward passes included", fontsize=9.5, color=_INK)
    axes.set_ylabel(f"{supernet.metric} lost to the supernet{unit}", fontsize=9.5, color=_INK)
    axes.set_title(f"{title}, n = {_seeds(rows)}", loc="left", fontsize=9.5, color=_INK, pad=14)
    axes.grid(color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    # The front counts first: where room is short its names stand closest to their points.
    return sorted(labels, key=lambda label: (label.x, label.y) not in front)


def _without_numbers_below(axes: Any, start: float) -> None:
    """Leave out the numbers of an axis before it breaks."""
    from matplotlib.ticker import FuncFormatter, LogFormatterMathtext

    plain = LogFormatterMathtext()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, place: plain(x, place) if x > start else ""))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda x, place: ""))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points than which none is as low in one coordinate and lower in the other, from left to right."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points)):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front


def _seeds(rows: Sequence[Row]) -> str:
    numbers = sorted({row.n for row in rows})
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _colour(row: Row) -> str:
    return _COLOURS.get(row.uses.rpartition(", ")[2], "#333333")


def _legend(rows: Sequence[Row]) -> list[Any]:
    from matplotlib.lines import Line2D

    used = {row.uses.rpartition(", ")[2] for row in rows if row.kind not in UNCUT}
    names = {"training": "trains in its search", "validation": "measures on validation", "weights": "weights alone"}
    handles = [
        Line2D([], [], ls="", marker="o", color=colour, label=names.get(use, use))
        for use, colour in _COLOURS.items()
        if use in used
    ]
    front = Line2D([], [], color=_INK, lw=1.2, ls=(0, (4, 3)), label=f"Pareto front of means; bars: {fmt.INTERVAL}")
    return [*handles, front]
