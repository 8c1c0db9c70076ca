"""Our points of figure 3: one marker per method, open where it is distilled, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dms_bench.report.paper.compare import ComparisonLine
from dms_bench.report.paper.labels import Label
from dms_bench.report.paper.measured import Measured, distilled
from dms_bench.report.svg import CEILING_COLOUR, PALETTE, room
from dms_bench.tracking import names

#: Points at one budget stand side by side, this part of the panel's width apart.
_APART = 0.013
#: Budgets are met from below, within this.
_SAME_BUDGET = 0.02


class Style(NamedTuple):
    """How a method is drawn; its shape says as much as its colour."""

    label: str
    marker: str
    colour: str
    size: float = 75


_STYLES = {
    "dms": Style("DMS", "*", PALETTE[0], 150),
    "random": Style("random architectures", "X", PALETTE[3]),
    "supernet": Style("designed", "s", CEILING_COLOUR, 60),
    "uniform": Style("one width ratio", "P", "#7f7f7f"),
}
_OTHERS = Style("other searches", "^", "#7f7f7f")
_IN_ORDER = (*_STYLES.values(), _OTHERS)


class Names(NamedTuple):
    """Names of a panel, and the points that they may not hide."""

    labels: list[Label]
    points: list[tuple[float, float]]

    def extend(self, added: Names) -> None:
        """Add what else is drawn in the panel."""
        self.labels.extend(added.labels)
        self.points.extend(added.points)


class _Point(NamedTuple):
    line: ComparisonLine
    measured: Measured
    x: float
    mean: float
    half: float | None


def short_name(line: ComparisonLine) -> str:
    """Return the name of a network of DMS without the method and the family, both of which its marker tells."""
    return line.row.name.replace("DMSnp-EN-", "").replace("DMSnp*-EN-", "*")


def styles(lines: Sequence[ComparisonLine]) -> list[Style]:
    """Return the styles that are needed, in the order of the legend."""
    used = [_style(line.measured) for line in lines if line.measured]
    return [style for style in _IN_ORDER if style in used]


def draw_ours(
    axes: Any, lines: Sequence[ComparisonLine], x: Callable[[ComparisonLine], float | None], *, log: bool
) -> Names:
    """Draw our means with their 95 % intervals, and return the names of DMS' networks.

    Args:
        axes: matplotlib's.
        lines: rows with finished trials.
        x: where a row stands; rows without a place are left out.
        log: whether that is a logarithm, where points stand where they are and not side by side.
    """
    placed = [
        _Point(line, line.measured, position, line.ours.mean, line.ours.ci95)
        for line in lines
        if line.measured is not None and line.ours.mean is not None and (position := x(line)) is not None
    ]
    drawn = Names([], [])
    joined: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    positions = [point.x for point in placed]
    step = 0.0 if log or not positions else _APART * max(max(positions) - min(positions), max(positions) / 4)
    for group in _groups(placed):
        for index, point in enumerate(group):
            style, is_distilled = _style(point.measured), distilled(point.measured)
            at = (point.x + (index - (len(group) - 1) / 2) * step, point.mean)
            face = "white" if is_distilled else style.colour
            axes.errorbar(*at, yerr=point.half, color=style.colour, lw=1.1, alpha=0.45, zorder=4)
            axes.scatter(
                *at, s=style.size, marker=style.marker, facecolor=face, edgecolor=style.colour, lw=1.3, zorder=5
            )
            drawn.points.append(at)
            if style is _STYLES["dms"]:
                drawn.labels.append(Label(short_name(point.line), *at, style.colour))
                joined[is_distilled].append(at)
    for is_distilled, points in joined.items():
        if points and not log:
            dashes = (0, (4, 3)) if is_distilled else "-"
            axes.plot(*zip(*points, strict=True), color=_STYLES["dms"].colour, lw=1.4, ls=dashes, alpha=0.65, zorder=2)
    return drawn


def fit_height(axes: Any, lines: Sequence[ComparisonLine]) -> None:
    """Give a panel room for the means; an interval that is far wider than these lie apart runs out of it."""
    estimates = [line.ours for line in lines]
    axes.set_ylim(room([(mean, half or 0.0) for mean, half, _ in estimates if mean is not None], percent=True))


def _style(measured: Measured) -> Style:
    return _STYLES.get(measured.tag(names.METHOD), _OTHERS)


def _groups(placed: Sequence[_Point]) -> list[list[_Point]]:
    """Return points by budget, which they meet within a tolerance; in a group, one method stands beside the other."""
    groups: list[list[_Point]] = []
    for point in sorted(placed, key=lambda point: point.x):
        if groups and point.x <= groups[-1][0].x * (1 + _SAME_BUDGET):
            groups[-1].append(point)
        else:
            groups.append([point])
    for group in groups:
        group.sort(key=_order)
    return groups


def _order(point: _Point) -> tuple[int, bool, str]:
    return _IN_ORDER.index(_style(point.measured)), distilled(point.measured), point.line.row.name
