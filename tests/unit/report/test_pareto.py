"""The Pareto figure: its front against the definition, what is drawn, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dms_bench.cli import _main
from dms_bench.errors import UserError
from dms_bench.report import Row, leaderboard
from dms_bench.report.pareto import draw_pareto, pareto_front

POINTS = st.lists(st.tuples(st.integers(0, 9).map(float), st.integers(-5, 5).map(float)), max_size=12)


@given(points=POINTS)
def test_the_front_is_what_no_other_point_dominates(points: list[tuple[float, float]]) -> None:
    def dominated(point: tuple[float, float]) -> bool:
        return any(other[0] <= point[0] and other[1] <= point[1] and other != point for other in points)

    assert pareto_front(points) == sorted({point for point in points if not dominated(point)})


@pytest.fixture
def board(board_uri: str) -> list[Row]:
    uses = {"dms": "weights, data, gradients, training", "uniform": "weights", "random": "nothing"}
    computed = {"dms": 3.2e12, "uniform": 2e9, "random": 0.0}
    return [
        replace(row, uses=uses.get(row.kind, ""), search_training_macs=computed.get(row.kind))
        for row in leaderboard(board_uri)
    ]


def test_points_are_losses_to_the_supernet_against_what_was_computed(board: list[Row]) -> None:
    supernet = next(row for row in board if row.kind == "supernet")
    figure = draw_pareto(board, "A suite")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    budgets = {row.budget for row in board if row.kind != "supernet"}
    assert len(panels) == len(budgets)
    drawn = {
        (round(float(x), 3), round(float(y), 3))
        for axes in panels
        for container in axes.containers
        for x, y in zip(*container.lines[0].get_data(), strict=True)
    }
    expected = {
        (round(row.search_training_macs or 2e8, 3), round(supernet.mean - row.mean, 3))
        for row in board
        if row.kind != "supernet" and row.mean is not None
    }
    assert {y for _, y in drawn} == {y for _, y in expected}
    assert {x for x, _ in drawn} >= {3.2e12}
    texts = {text.get_text() for axes in panels for text in axes.texts}
    assert {"dms", "uniform", "nothing"} <= texts


def test_what_was_not_counted_is_not_drawn(board: list[Row]) -> None:
    with pytest.raises(UserError, match="a finished 'supernet'"):
        draw_pareto([row for row in board if row.kind != "supernet"], "A suite")
    with pytest.raises(UserError, match="computations were"):
        draw_pareto([replace(row, search_training_macs=None) for row in board], "A suite")


def test_the_command_says_why_nothing_is_drawn(
    board_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = leaderboard(board_uri)[0].suite
    assert _main(["pareto", "--suite", suite, "--tracking", board_uri, "-o", str(tmp_path / "p")]) == 2
    assert "nothing to draw" in capsys.readouterr().err
