"""A comparison of many methods as SVG: a line for each, its mean and interval, by budget.

For more methods than colours can tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import groupby

from dms_bench.report import format as fmt
from dms_bench.report.board import CEILING, CONTROL, OURS, Row
from dms_bench.report.svg import PALETTE, Axis, measure_axis, ticks, tooltip

_WIDTH, _LABELS, _RIGHT, _BOTTOM = 860, 380, 16, 46
_LINE, _HEADING = 19, 30
_PLAIN = "#5b6573"
_COLOURS = {OURS: PALETTE[0], CONTROL: PALETTE[3], CEILING: "#111111"}
_LONGEST = 56


def forest(rows: Sequence[Row], label: str) -> str:
    """Draw the mean and interval of every row on a line of its own; an empty string if nothing is measured.

    Args:
        rows: of one comparison, in the order of the board: by budget, the best first.
        label: says what the picture shows to those who cannot see it.
    """
    shown = [row for row in rows if row.mean is not None and math.isfinite(row.mean)]
    if not shown:
        return ""
    budgets = [(budget, list(members)) for budget, members in groupby(shown, key=lambda row: row.budget)]
    foot = len(budgets) * _HEADING + len(shown) * _LINE
    x = measure_axis(shown, _LABELS, _WIDTH - _RIGHT)
    size = f'viewBox="0 0 {_WIDTH} {foot + _BOTTOM}"'
    parts = [f'<svg class="panel" {size} role="img" aria-label="{escape(label, quote=True)}">']
    parts += _grid(x, foot, fmt.heading(shown[0].metric, shown[0].unit))
    level = 0.0
    for budget, members in budgets:
        level += _HEADING
        parts.append(f'<text class="budget" x="4" y="{level - 9:.1f}">{escape(budget)}</text>')
        for row in members:
            parts += _line(row, x, level + _LINE / 2)
            level += _LINE
    return "\n".join([*parts, "</svg>"])


def _grid(x: Axis, foot: float, heading: str) -> list[str]:
    parts = []
    for value in ticks(x.low, x.high, count=7):
        position = f"{x(value):.1f}"
        parts.append(f'<line class="grid" x1="{position}" x2="{position}" y1="0" y2="{foot}"/>')
        parts.append(f'<text class="tick" x="{position}" y="{foot + 17}" text-anchor="middle">{value:.6g}</text>')
    parts.append(f'<line class="axis" x1="{_LABELS}" x2="{_WIDTH - _RIGHT}" y1="{foot}" y2="{foot}"/>')
    centre = (_LABELS + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="name" x="{centre}" y="{foot + 38}" text-anchor="middle">{escape(heading)}</text>')
    return parts


def _line(row: Row, x: Axis, level: float) -> list[str]:
    colour, mean = _COLOURS.get(row.kind, _PLAIN), row.mean or 0.0
    name = row.method if len(row.method) <= _LONGEST else row.method[: _LONGEST - 1] + "…"
    parts = [f'<text x="{_LABELS - 10}" y="{level:.1f}" dy="0.35em" text-anchor="end">{escape(name)}</text>']
    if row.ci95 is not None:
        (left, less), (right, more) = (x.interval_end(row, sign) for sign in (-1, 1))
        bar = f"M{left:.1f} {level - 3 * less:.1f}v{6 * less}m0 {-3 * less}H{right:.1f}m0 {-3 * more}v{6 * more}"
        parts.append(f'<path class="interval" d="{bar}" stroke="{colour}"/>')
    parts.append(f'<circle cx="{x(mean):.1f}" cy="{level:.1f}" r="4.5" fill="{colour}">{tooltip(row)}</circle>')
    return parts
