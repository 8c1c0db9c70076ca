"""Accuracy against MACs as SVG: one panel per block, nothing needed to show it but a browser."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from dms_bench.report import format as fmt
from dms_bench.report.board import CEILING, Row

#: Distinct for colour-blind readers (Okabe and Ito), DMS first.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#7f7f7f", "#b8a500")
CEILING_COLOUR = "#333333"
_WIDTH, _HEIGHT = 520, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 20, 14, 48
_DODGE = 5.0


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels."""

    low: float
    high: float
    log: bool
    #: Pixels of `low` and `high`.
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; the nearest end for one beyond the axis."""
        scale: Callable[[float], float] = math.log10 if self.log else float
        value = min(max(value, self.low), self.high)  # intervals may be wider than what can be measured
        share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return self.start + share * (self.end - self.start)

    def interval_end(self, row: Row, sign: int) -> tuple[float, bool]:
        """Return the pixel of an end of a row's interval, and whether the axis holds it; if not, it is drawn open."""
        value = (row.mean or 0.0) + sign * (row.ci95 or 0.0)
        return self(value), self.low <= value <= self.high


def colours(rows: Sequence[Row]) -> dict[str, str]:
    """Give every method of a page one colour, the same in all panels."""
    methods = sorted({row.method for row in rows if row.kind != CEILING}, key=lambda name: (name != "dms", name))
    return {method: PALETTE[index % len(PALETTE)] for index, method in enumerate(methods)}


def panel(rows: Sequence[Row], colour: dict[str, str], label: str) -> str:
    """Draw the measure of one block's rows against their MACs; an empty string if nothing is measured."""
    shown = [row for row in rows if row.mean is not None and math.isfinite(row.mean) and row.macs]
    if not shown:
        return ""
    x, y = _x_axis([row.macs or 0 for row in shown]), measure_axis(shown, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg class="panel" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label, quote=True)}">',
        *_grid(x, y, fmt.heading(shown[0].metric, shown[0].unit)),
    ]
    for row in shown:
        if row.kind == CEILING:
            parts += _ceiling(row, x, y)
    methods = [method for method in colour if any(row.method == method for row in shown)]
    for index, method in enumerate(methods):
        # Methods cut to one budget share their MACs: a few pixels apart, their intervals stay readable.
        shift = (index - (len(methods) - 1) / 2) * _DODGE
        series = sorted((row for row in shown if row.method == method), key=lambda row: row.macs or 0)
        parts += _series(series, x, y, colour[method], shift)
    return "\n".join([*parts, "</svg>"])


def _x_axis(macs: Sequence[float]) -> Axis:
    low, high = min(macs), max(macs)
    log = high > 8 * low
    margin = (high / low) ** 0.08 if log else 1.0
    # Networks cut to one budget differ by less than a percent: that must not fill the axis.
    pad = max((high - low) * 0.12, (high / 2 - (high - low)) / 2)
    start, end = (low / margin, high * margin) if log else (max(0.0, low - pad), high + pad)
    return Axis(start, end, log, _LEFT, _WIDTH - _RIGHT)


def measure_axis(rows: Sequence[Row], start: float, end: float) -> Axis:
    """Return an axis from pixel `start` to `end` that holds the means of rows, and as a rule their intervals."""
    low, high = room([(row.mean or 0.0, row.ci95 or 0.0) for row in rows], percent=rows[0].unit == "%")
    return Axis(low, high, False, start, end)


def room(measured: Sequence[tuple[float, float]], *, percent: bool) -> tuple[float, float]:
    """Return the bounds of an axis for means and half widths of their intervals.

    An interval that is wide beside the differences between means, as that of few seeds which fail, would leave no room
    to tell those apart: the axis goes beyond the means by as much as these lie apart, or as most intervals need.
    """
    means = [mean for mean, _ in measured]
    halves = sorted(half for _, half in measured)
    beyond = max(max(means) - min(means), halves[len(halves) // 2])
    ends = [mean + sign * half for mean, half in measured for sign in (-1, 1)]
    low, high = max(min(ends), min(means) - beyond), min(max(ends), max(means) + beyond)
    pad = (high - low or abs(high) or 1.0) * 0.08
    # None of the measures can be negative.
    return max(0.0, low - pad), min(high + pad, 100.0 if percent else math.inf)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers between two bounds, about `count` of them."""
    raw = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high < 100 * low else (1,)
    return [factor * 10.0**decade for decade in decades for factor in factors if low <= factor * 10.0**decade <= high]


def _grid(x: Axis, y: Axis, heading: str) -> list[str]:
    parts = []
    for value in ticks(y.low, y.high, count=7):
        level = f"{y(value):.1f}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{level}" y2="{level}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{level}" dy="0.35em" text-anchor="end">{value:.6g}</text>')
    for value in _log_ticks(x.low, x.high) if x.log else ticks(x.low, x.high):
        position, foot = f"{x(value):.1f}", _HEIGHT - _BOTTOM
        parts.append(f'<line class="mark" x1="{position}" x2="{position}" y1="{foot}" y2="{foot + 5}"/>')
        label = fmt.count(value).replace(".00", "").replace(".0", "")
        parts.append(f'<text class="tick" x="{position}" y="{foot + 19}" text-anchor="middle">{label}</text>')
    foot, centre = _HEIGHT - _BOTTOM, (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{foot}" y2="{foot}"/>')
    scale = ", log scale" if x.log else ""
    parts.append(f'<text class="name" x="{centre}" y="{_HEIGHT - 8}" text-anchor="middle">MACs{scale}</text>')
    middle = (_TOP + foot) / 2
    turn = f'transform="rotate(-90 15 {middle})"'
    parts.append(f'<text class="name" x="15" y="{middle}" text-anchor="middle" {turn}>{escape(heading)}</text>')
    return parts


def _ceiling(row: Row, x: Axis, y: Axis) -> list[str]:
    mean, half = row.mean or 0, row.ci95 or 0
    left, right, level = _LEFT, _WIDTH - _RIGHT, y(mean)
    band = f'height="{y(mean - half) - y(mean + half):.1f}" fill="{CEILING_COLOUR}" opacity="0.07"'
    return [
        f'<rect x="{left}" y="{y(mean + half):.1f}" width="{right - left}" {band}/>',
        f'<line class="ceiling" x1="{left}" x2="{right}" y1="{level:.1f}" y2="{level:.1f}"/>',
        f'<path d="{_star(x(row.macs or 0), level)}" fill="{CEILING_COLOUR}">{tooltip(row)}</path>',
    ]


def _star(x: float, y: float, radius: float = 8.0) -> str:
    points = []
    for index in range(10):
        angle, length = math.pi * index / 5, radius * (1 if index % 2 == 0 else 0.42)
        points.append(f"{x + length * math.sin(angle):.1f},{y - length * math.cos(angle):.1f}")
    return "M" + "L".join(points) + "Z"


def _series(rows: Sequence[Row], x: Axis, y: Axis, colour: str, shift: float) -> list[str]:
    centres = [(x(row.macs or 0) + shift, y(row.mean or 0)) for row in rows]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in centres)
    parts = [f'<polyline class="series" points="{line}" stroke="{colour}"/>'] if len(rows) > 1 else []
    for row, (a, b) in zip(rows, centres, strict=True):
        if row.ci95 is not None:
            (top, more), (foot, less) = (y.interval_end(row, sign) for sign in (1, -1))
            bar = f"M{a - 3 * more:.1f} {top:.1f}h{6 * more}m{-3 * more} 0V{foot:.1f}m{-3 * less} 0h{6 * less}"
            parts.append(f'<path class="interval" d="{bar}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4.5" fill="{colour}">{tooltip(row)}</circle>')
    return parts


def tooltip(row: Row) -> str:
    """Return what a browser shows over a row's mark."""
    value, name = fmt.measure(row.mean, row.ci95, row.decimals), fmt.heading(row.metric, row.unit)
    text = f"{row.method}, {row.budget}: {name} {value}, {fmt.count(row.macs)} MACs, n = {row.n}"
    return f"<title>{escape(text)}</title>"
