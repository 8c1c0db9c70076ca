"""Names beside the points of a plot, none on top of another name or of a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: Left, bottom, right, top in pixels.
Box = tuple[float, float, float, float]
#: Where a name may stand: steps right and up; the first that is free is taken.
_DIRECTIONS = ((-1, 1), (1, -1), (1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
#: Distances from the point, in points; from the third on, a thin line leads to it.
_DISTANCES = (7, 13, 20, 30, 42)
_LED = _DISTANCES[2]


@dataclass(frozen=True)
class Label:
    """A name for the point at (x, y) in the units of its axes."""

    text: str
    x: float
    y: float
    colour: str
    size: float = 8.5


def place_labels(axes: Any, labels: Sequence[Label], points: Sequence[tuple[float, float]]) -> None:
    """Write names where they hide neither each other nor a point; limits and layout of the axes have to be final.

    Args:
        axes: matplotlib's.
        labels: names, those that matter most first: they stand closest to their points.
        points: everything drawn that has to stay visible, (x, y) in the units of the axes.
    """
    figure = axes.figure
    renderer = figure.canvas.get_renderer()
    pixel = figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    marks = [axes.transData.transform(point) for point in points]
    occupied: list[Box] = [(x - 5 * pixel, y - 5 * pixel, x + 5 * pixel, y + 5 * pixel) for x, y in marks]
    for label in labels:
        text = axes.annotate(
            label.text, (label.x, label.y), (0, 0), textcoords="offset points", fontsize=label.size,
            color=label.colour, ha="left", va="bottom", zorder=6,
        )  # fmt: skip
        text.set_in_layout(False)
        extent = text.get_window_extent(renderer)
        width, height = extent.width + 4 * pixel, extent.height
        x, y = axes.transData.transform((label.x, label.y))
        distance, box = _freest((x, y), (width, height), pixel, occupied, frame)
        text.set_position(((box[0] - x) / pixel + 2, (box[1] - y) / pixel))
        if distance >= _LED:
            end = axes.transData.inverted().transform((min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])))
            axes.plot([label.x, end[0]], [label.y, end[1]], color=label.colour, lw=0.6, alpha=0.6, zorder=3)
        occupied.append(box)


def _freest(
    point: tuple[float, float], size: tuple[float, float], pixel: float, occupied: Sequence[Box], frame: Any
) -> tuple[int, Box]:
    """Return the first place around a point where a name hides nothing, else where it hides least, and its distance."""
    positions = (
        (distance, _beside(point, size, right * distance * pixel, up * distance * pixel, right, up))
        for distance in _DISTANCES
        for right, up in _DIRECTIONS
    )
    candidates: list[tuple[float, int, Box]] = []
    for distance, box in positions:
        hidden = sum(_overlap(box, obstacle) for obstacle in occupied) + _outside(box, frame)
        if hidden == 0:
            return distance, box
        candidates.append((hidden, distance, box))
    _, distance, box = min(candidates, key=lambda candidate: candidate[0])
    return distance, box


def _beside(
    point: tuple[float, float], size: tuple[float, float], across: float, along: float, right: int, up: int
) -> Box:
    """Return the box of a name that is moved from a point, with its near side there."""
    left = point[0] + across - size[0] * (1 - right) / 2
    bottom = point[1] + along - size[1] * (1 - up) / 2
    return (left, bottom, left + size[0], bottom + size[1])


def _overlap(one: Box, other: Box) -> float:
    """Return the area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _outside(box: Box, frame: Any) -> float:
    """Return the area of a box that is out of a frame."""
    whole = (box[2] - box[0]) * (box[3] - box[1])
    return float(whole - _overlap(box, (frame.x0, frame.y0, frame.x1, frame.y1)))
