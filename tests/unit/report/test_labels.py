"""Names in a plot: none hides another, or a point, and all are inside."""

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dms_bench.report.paper.labels import Label, place_labels

#: Points with names, closer together than the names are long.
CROWD = [(0.50, 0.5), (0.51, 0.5), (0.52, 0.5), (0.50, 0.51), (0.9, 0.99), (0.99, 0.01), (0.01, 0.5)]


@pytest.fixture
def axes():
    figure = Figure(figsize=(6, 4), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    figure.draw_without_rendering()
    return axes


def test_no_name_hides_a_name_or_a_point_or_leaves_the_plot(axes):
    place_labels(axes, [Label(f"network {index}", x, y, "black") for index, (x, y) in enumerate(CROWD)], CROWD)
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == len(CROWD)
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    marks = axes.transData.transform(CROWD)
    assert not [(box, mark) for box in boxes for mark in marks if box.contains(*mark)]
    frame = axes.get_window_extent()
    assert all(frame.contains(*corner) for box in boxes for corner in box.corners())


def test_a_name_far_from_its_point_is_led_to_it(axes):
    place_labels(axes, [Label("alone", 0.2, 0.8, "black")], [(0.2, 0.8)])
    assert not axes.lines, "close by"
    place_labels(axes, [Label(f"network {index}", 0.5, 0.5, "black") for index in range(16)], [(0.5, 0.5)])
    starts = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines]
    assert 0 < len(starts) < 16
    assert set(starts) == {(0.5, 0.5)}
