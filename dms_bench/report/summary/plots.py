"""A summary's figures as SVG, in the style of the leaderboard's page: dots, curves, ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from dms_bench.report.summary.bootstrap import Interval
from dms_bench.report.svg import PALETTE, Axis, ticks

_WIDTH, _LINE, _FOOT, _RIGHT = 720, 20, 44, 24
#: Pixels of a character of 12 pixels, at most; names that need more than the longest are cut.
_CHARACTER, _LONGEST = 6.7, 40
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_CURVES_TALL, _CURVES_LEFT, _CURVES_TOP = 320, 58, 12
_STYLE = (
    "text{font-family:sans-serif;font-size:12px;fill:#4a5361}.name{font-size:13px}.grid{stroke:#e8ebef}"
    ".axis,.mark{stroke:#8a93a0}.interval{fill:none;stroke-width:1.6}.series{fill:none;stroke-width:1.6}"
)


def standalone(drawing: str) -> str:
    """Return a drawing as a file that needs no page's style."""
    head, _, rest = drawing.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{_STYLE}</style>{rest}\n'


def dots(entries: Sequence[tuple[str, Interval]], heading: str, reference: float | None = None) -> str:
    """Draw a number with its interval for each method, on a line of its own.

    Args:
        entries: name and number, from top to bottom.
        heading: what the numbers are.
        reference: where a line is drawn, such as `no difference`.
    """
    left = _room(name for name, _ in entries)
    ends = [end for _, own in entries for end in own if end is not None]
    ends += [] if reference is None else [reference]
    x, foot = _axis(ends, left, _WIDTH - _RIGHT), 10 + len(entries) * _LINE
    parts = [_open(_WIDTH, foot + _FOOT, heading), *_below(x, foot, heading)]
    if reference is not None:
        parts.append(f'<line class="mark" x1="{x(reference):.1f}" x2="{x(reference):.1f}" y1="0" y2="{foot}"/>')
    for index, (name, own) in enumerate(entries):
        level = 10 + (index + 0.5) * _LINE
        parts.append(_name(name, left - 10, level, "end"))
        if own.low is not None and own.high is not None:
            bar = f"M{x(own.low):.1f} {level - 3:.1f}v6m0 -3H{x(own.high):.1f}m0 -3v6"
            parts.append(f'<path class="interval" d="{bar}" stroke="{PALETTE[0]}"/>')
        tip = f"<title>{escape(name)}: {own.value:.4g}</title>"
        parts.append(f'<circle cx="{x(own.value):.1f}" cy="{level:.1f}" r="4.5" fill="{PALETTE[0]}">{tip}</circle>')
    return "\n".join([*parts, "</svg>"])


def curves(series: Mapping[str, Sequence[tuple[float, float]]], x_heading: str, y_heading: str, end: float) -> str:
    """Draw steps, each with a colour and dashes of its own, and a legend at the right.

    Args:
        series: name -> (x, y) from left to right; y holds until the next x.
        x_heading: what x is.
        y_heading: what y is.
        end: x to which the last y of each holds.
    """
    legend = _room(series) + 24
    points = [point for own in series.values() for point in own]
    x = _axis([*(place for place, _ in points), end], _CURVES_LEFT, _WIDTH - legend - 12)
    foot = max(_CURVES_TALL, _CURVES_TOP + _LINE * len(series)) - _FOOT
    y = _axis([level for _, level in points], foot, _CURVES_TOP)
    parts = [_open(_WIDTH, foot + _FOOT, f"{y_heading} against {x_heading}"), *_below(x, foot, x_heading)]
    for value in ticks(y.low, y.high):
        parts.append(f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{x.start - 7}" y="{y(value):.1f}" dy="0.35em" text-anchor="end">{value:.4g}</text>')
    middle = (foot + _CURVES_TOP) / 2
    turn = f'transform="rotate(-90 14 {middle})"'
    parts.append(f'<text class="name" x="14" y="{middle}" text-anchor="middle" {turn}>{escape(y_heading)}</text>')
    for index, (name, own) in enumerate(series.items()):
        dashes = _DASHES[index // len(PALETTE) % len(_DASHES)]
        stroke = f'stroke="{PALETTE[index % len(PALETTE)]}" stroke-dasharray="{dashes}"'
        corners = [f"M{x(own[0][0]):.1f} {y(own[0][1]):.1f}"] if own else []
        corners += [f"H{x(place):.1f}V{y(level):.1f}" for place, level in own[1:]]
        line = "".join([*corners, f"H{x(end):.1f}"]) if own else ""
        parts.append(f'<path class="series" d="{line}" {stroke} fill="none"><title>{escape(name)}</title></path>')
        level = _CURVES_TOP + (index + 0.5) * _LINE
        parts.append(f'<path class="series" d="M{x.end + 14:.1f} {level:.1f}h22" {stroke} fill="none"/>')
        parts.append(_name(name, x.end + 42, level, "start"))
    return "\n".join([*parts, "</svg>"])


def critical(entries: Sequence[tuple[str, float, str]], difference: float | None) -> str:
    """Draw average ranks, best first, and a bar beside those that share a letter.

    Args:
        entries: name, average rank and letters, in the order of the ranks.
        difference: the critical one, drawn at the top as a length; None where there is none.
    """
    left = _room(name for name, _, _ in entries)
    groups = sorted({letter for _, _, own in entries for letter in own if letter.isalpha()})
    right = _WIDTH - _RIGHT - 12 * len(groups)
    x = Axis(1.0, max(2.0, float(len(entries))), False, left, right)
    top, foot = 30, 36 + len(entries) * _LINE
    parts = [_open(_WIDTH, foot + _FOOT, "average rank"), *_below(x, foot, "average rank (1 is the best)")]
    if difference is not None:
        end = min(1 + difference, x.high)
        parts.append(f'<path class="interval" d="M{x(1):.1f} 17v6m0 -3H{x(end):.1f}m0 -3v6" stroke="{PALETTE[3]}"/>')
        text = f"critical difference {difference:.2f}"
        parts.append(f'<text x="{x(1):.1f}" y="12">{text}</text>')
    levels = [top + (index + 0.5) * _LINE for index in range(len(entries))]
    for (name, rank, _), level in zip(entries, levels, strict=True):
        parts.append(_name(name, left - 10, level, "end"))
        tip = f"<title>{escape(name)}: {rank:.2f}</title>"
        parts.append(f'<circle cx="{x(rank):.1f}" cy="{level:.1f}" r="4.5" fill="{PALETTE[0]}">{tip}</circle>')
    for index, letter in enumerate(groups):
        members = [level for (_, _, own), level in zip(entries, levels, strict=True) if letter in own]
        place = right + 14 + 12 * index
        bar = f'd="M{place} {min(members) - 6:.1f}V{max(members) + 6:.1f}" stroke="#1d2430" stroke-width="3"'
        parts.append(f"<path {bar}><title>not told apart: {escape(letter)}</title></path>")
    return "\n".join([*parts, "</svg>"])


def _open(width: int, height: int, label: str) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="panel" {size} role="img" aria-label="{escape(label, quote=True)}">'


def _room(names: Iterable[str]) -> float:
    return 20 + _CHARACTER * max((min(len(name), _LONGEST) for name in names), default=0)


def _name(name: str, x: float, level: float, anchor: str) -> str:
    text = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    return f'<text x="{x:.1f}" y="{level:.1f}" dy="0.35em" text-anchor="{anchor}">{escape(text)}</text>'


def _axis(values: Sequence[float], start: float, end: float) -> Axis:
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = 0.04 * (high - low or abs(high) or 1.0)
    return Axis(low - pad, high + pad, False, start, end)


def _below(x: Axis, foot: float, heading: str) -> list[str]:
    parts = []
    for value in ticks(x.low, x.high, count=6):
        place = f"{x(value):.1f}"
        parts.append(f'<line class="grid" x1="{place}" x2="{place}" y1="8" y2="{foot}"/>')
        parts.append(f'<text x="{place}" y="{foot + 17}" text-anchor="middle">{value:.4g}</text>')
    parts.append(f'<line class="axis" x1="{x.start:.1f}" x2="{x.end:.1f}" y1="{foot}" y2="{foot}"/>')
    centre = (x.start + x.end) / 2
    parts.append(f'<text class="name" x="{centre:.1f}" y="{foot + 37}" text-anchor="middle">{escape(heading)}</text>')
    return parts
