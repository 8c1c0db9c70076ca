"""Figure 3: accuracy against MACs and against search cost, the published points and ours.

Colour is the family, open markers are distilled networks, large ones a high search cost (as the paper classes it). Ours
stand beside the published points where they are of the published task, and in panels of their own where they are a
proxy's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from dms_bench.report.paper.compare import Comparison, ComparisonLine
from dms_bench.report.paper.labels import Label, place_labels
from dms_bench.report.paper.ours import Names, draw_ours, fit_height, short_name, styles
from dms_bench.report.svg import PALETTE
from dms_bench.tracking import names

_GREY, _INK = "#8a93a0", "#1d2430"
_SMALL, _LARGE = 42, 120
#: A day's fraction below which a cost is taken for this, as a logarithm has no zero.
_LEAST_DAYS = 1e-7
_DMS = "DMSnp"

Point = tuple[ComparisonLine, float, float]


def draw_scatter(comparisons: Sequence[Comparison], title: str) -> Any:
    """Return the figure (matplotlib's).

    Args:
        comparisons: the tables whose rows are drawn.
        title: heading.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = _distinct([line for comparison in comparisons for line in comparison.lines])
    ours = [line for line in lines if line.measured is not None and line.ours.n]
    comparable = all(line.comparable for line in ours)
    separate = bool(ours) and not comparable
    figure = Figure(figsize=(12.8, 10.6 if separate else 6.0), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 if separate else 1, 2, squeeze=False)
    colours = _colours(lines)
    days = "search cost, public + private [GPU or TPU days]"
    panel_names = {
        axes[0][0]: _panel(axes[0][0], lines, colours, _published_macs, "multiply-accumulates [G]", log=False),
        axes[0][1]: _panel(axes[0][1], lines, colours, _published_days, days, log=True),
    }
    axes[0][0].set_title("published: accuracy against MACs", loc="left", fontsize=11, color=_INK)
    axes[0][1].set_title("published: accuracy against search cost", loc="left", fontsize=11, color=_INK)
    if ours and comparable:
        panel_names[axes[0][0]].extend(draw_ours(axes[0][0], ours, _our_macs(1e9), log=False))
        panel_names[axes[0][1]].extend(draw_ours(axes[0][1], ours, _our_days, log=True))
    if separate:
        task = " / ".join(sorted({comparison.task for comparison in comparisons if comparison.task}))
        kind = " / ".join(sorted({line.measured.tag(names.DEVICE_KIND).upper() for line in ours if line.measured}))
        for axis, name in zip(axes[1], ("MACs", "search cost"), strict=True):
            axis.set_title(f"ours, proxy ({task}): accuracy against {name}", loc="left", fontsize=11, color=_INK)
        panel_names[axes[1][0]] = draw_ours(axes[1][0], ours, _our_macs(1e6), log=False)
        panel_names[axes[1][1]] = draw_ours(axes[1][1], ours, _our_days, log=True)
        _finish(axes[1][0], "multiply-accumulates [M], points of one budget side by side", log=False)
        _finish(axes[1][1], f"search cost, public + private [{kind} days]", log=True)
        for axis in axes[1]:
            fit_height(axis, ours)
    figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold", color=_INK)
    figure.legend(handles=_legend(colours, ours), loc="outside lower left", ncols=5, frameon=False, fontsize=9.5)
    figure.draw_without_rendering()  # names are placed in the final layout
    for panel, drawn in panel_names.items():
        place_labels(panel, drawn.labels, drawn.points)
    return figure


def _distinct(lines: Sequence[ComparisonLine]) -> list[ComparisonLine]:
    """Drop rows that are printed in more than one table, keeping the one with a cost."""
    distinct: dict[tuple[object, ...], ComparisonLine] = {}
    for line in lines:
        row = line.row
        if row.control and not (line.measured and line.ours.n):
            continue
        key = (row.name, row.distilled, row.macs_g, line.published)
        if key not in distinct or (distinct[key].row.search_days() is None and row.search_days() is not None):
            distinct[key] = line
    return list(distinct.values())


def _family(line: ComparisonLine) -> str:
    """Return a row's family: its name up to the size, `DMSnp-EN`, `EfficientNet`, `ZiCo`."""
    name = line.row.name.replace("*", "")
    return re.sub(r"[- ](EN[- ]?)?(B\d|L\d|A\d|XL|\d{3,}M?|[\d.]+G?)( .*)?$", r"", name).removesuffix("-EN")


def _colours(lines: Sequence[ComparisonLine]) -> dict[str, str]:
    """Give DMS the first colour, and other families with a line of points the next ones; single points are grey."""
    drawn = [line for line in lines if line.published is not None and not line.row.control]
    counts: dict[str, int] = {}
    for line in drawn:
        counts[_family(line)] = counts.get(_family(line), 0) + 1
    several = sorted((name for name, count in counts.items() if count > 1), key=lambda name: (name != _DMS, name))
    colours = [*(colour for colour in PALETTE if colour not in ("#d55e00", "#7f7f7f")), "#882255", "#117733"]
    return dict(zip(several, colours, strict=False))


def _published_macs(line: ComparisonLine) -> float | None:
    return line.row.macs_g


def _published_days(line: ComparisonLine) -> float | None:
    return line.row.search_days()


def _our_macs(unit: float) -> Callable[[ComparisonLine], float | None]:
    def macs(line: ComparisonLine) -> float | None:
        mean = line.measured.mean("macs") if line.measured else None
        return None if mean is None else mean / unit

    return macs


def _our_days(line: ComparisonLine) -> float | None:
    if line.measured is None:
        return None
    public, private = (line.measured.mean(f"{name}_device_days") or 0.0 for name in ("public", "search"))
    return max(public + private, _LEAST_DAYS)


def _panel(
    axes: Any,
    lines: Sequence[ComparisonLine],
    colours: dict[str, str],
    x: Callable[[ComparisonLine], float | None],
    label: str,
    *,
    log: bool,
) -> Names:
    points = [
        (line, position, line.published)
        for line in lines
        if line.published is not None and not line.row.control and (position := x(line)) is not None
    ]
    series: dict[tuple[str, bool], list[Point]] = {}
    for point in points:
        series.setdefault((_family(point[0]), point[0].row.distilled), []).append(point)
    for (family, distilled), members in series.items():
        colour = colours.get(family, _GREY)
        members.sort(key=lambda point: (point[1], point[2]))
        joined = [point for point in members if not point[0].row.later]
        if len(joined) > 1 and family in colours and not log:
            style = (0, (4, 3)) if distilled else "-"
            axes.plot(
                [p[1] for p in joined], [p[2] for p in joined], color=colour, lw=1.4, ls=style, alpha=0.65, zorder=2
            )
        for line, position, height in members:
            size = _LARGE if line.row.level == "high" else _SMALL
            marker = "D" if line.row.later else "o"
            face = "white" if distilled else colour
            axes.scatter(position, height, s=size, marker=marker, facecolor=face, edgecolor=colour, lw=1.6, zorder=3)
    _finish(axes, label, log=log)
    return Names(_label([point for point in points if _worth_a_name(point[0], colours)]), [p[1:] for p in points])


def _worth_a_name(line: ComparisonLine, colours: dict[str, str]) -> bool:
    return _family(line) not in colours or line.row.later or _family(line) == _DMS


def _label(points: Sequence[Point]) -> list[Label]:
    """Return the names of published points, those of DMS first."""
    labels = []
    for line, position, height in sorted(points, key=lambda point: (_family(point[0]) != _DMS, point[1], -point[2])):
        dms = _family(line) == _DMS
        labels.append(
            Label(short_name(line) if dms else line.row.name, position, height, PALETTE[0] if dms else "#4a5361")
        )
    return labels


def _finish(axes: Any, label: str, *, log: bool) -> None:
    if log:
        axes.set_xscale("log")
    axes.set_xlabel(label, fontsize=10, color=_INK)
    axes.set_ylabel("ImageNet top-1 [%]" if "G]" in label or "TPU" in label else "top-1 [%]", fontsize=10, color=_INK)
    axes.grid(color="#e8ebef", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(colors="#4a5361", labelsize=9)
    axes.margins(x=0.12, y=0.12)


def _legend(colours: dict[str, str], ours: Sequence[ComparisonLine]) -> list[Any]:
    from matplotlib.lines import Line2D

    def mark(label: str, **style: Any) -> Any:
        return Line2D([], [], **{"ls": "", "marker": "o", "color": _GREY, "markersize": 7, "label": label, **style})

    handles = [mark(family, color=colour, ls="-") for family, colour in colours.items()]
    handles += [
        mark("single published point"),
        mark("distilled", markerfacecolor="white", ls=(0, (4, 3))),
        mark("high search cost", markersize=11),
        mark("later than the paper", marker="D"),
    ]
    handles += [
        mark(f"ours, {style.label}", marker=style.marker, color=style.colour, markersize=9) for style in styles(ours)
    ]
    return handles
