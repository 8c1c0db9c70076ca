"""A leaderboard says which comparisons were decided."""

from __future__ import annotations

import pytest

from dms_bench import report
from dms_bench.report import decided
from dms_bench.report.board import Row
from dms_bench.report.decided import decided_notes
from dms_bench.tracking import DecidedFamily, DecidedPair
from tests.unit.report.test_report_render import printed

PAIR = DecidedPair("dms - <b> at macs 30%", "different", seeds=5, pairs=5, mean=1.21, low=0.43, high=1.99)
FAMILY = DecidedFamily("cnn", margin=0.3, at_most=20, alpha=0.05, decimals=2, pairs=(PAIR, PAIR))
LINE = "cnn: dms - <b> at macs 30%: +1.21 [+0.43, +1.99] decided after 5 seeds"


def test_each_family_is_introduced_and_each_comparison_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decided, "read_decided", lambda uri, suite: [FAMILY] if suite == "one" else [])
    assert decided_notes("uri", ["other"]) == []
    how, line = decided_notes("uri", ["other", "one"])
    assert line == LINE
    assert how.startswith(
        "Seeds were added until decided, 20 at most; the probability of any false difference among 2 "
    )


@pytest.fixture(scope="module")
def board(board_uri: str) -> list[Row]:
    return report.leaderboard(board_uri)


def test_notes_are_part_of_every_format_for_reading(board: list[Row]) -> None:
    assert LINE in " ".join(printed(report.render(board, "table", decided=[LINE])).split())
    assert f"- {LINE}" in str(report.render(board, "markdown", decided=[LINE]))
    page = str(report.render(board, "html", decided=[LINE]))
    assert LINE.replace("<b>", "&lt;b&gt;") in page
    assert "What was decided" in page
    assert "What was decided" not in str(report.render(board, "html"))
    assert LINE not in str(report.render(board, "csv", decided=[LINE]))
