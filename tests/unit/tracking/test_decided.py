"""What comparisons came to is kept with a suite's run, and read from its newest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dms_bench.config import Suite
from dms_bench.tracking import DecidedFamily, DecidedPair, open_suite, read_decided, reading, write_decided

PAIR = DecidedPair("dms - random at macs 30%", "different", seeds=5, pairs=5, mean=1.21, low=0.43, high=1.99)
FAMILY = DecidedFamily("cnn", margin=0.3, at_most=20, alpha=0.05, decimals=2, pairs=(PAIR,))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "cnn: dms - random at macs 30%: +1.21 [+0.43, +1.99] decided after 5 seeds"),
        (
            {"outcome": "equal", "mean": -0.02, "low": -0.1, "high": 0.06},
            "cnn: dms - random at macs 30%: -0.02 [-0.10, +0.06] equal within 0.3, decided after 5 seeds",
        ),
        (
            {"outcome": "undecided", "seeds": 20, "pairs": 18},
            "cnn: dms - random at macs 30%: +1.21 [+0.43, +1.99] undecided after 20 seeds (2 without a pair, as a "
            "trial failed)",
        ),
        (
            {"outcome": "open", "seeds": 1, "pairs": 1, "low": None, "high": None},
            "cnn: dms - random at macs 30%: +1.21 not decided yet, after 1 seed",
        ),
        (
            {"outcome": "open", "seeds": 0, "pairs": 0, "mean": None, "low": None, "high": None},
            "cnn: dms - random at macs 30%: not decided yet, after 0 seeds",
        ),
    ],
)
def test_a_comparison_is_a_line(change: dict[str, object], line: str) -> None:
    assert FAMILY.line(replace(PAIR, **change)) == line  # type: ignore[arg-type]


@pytest.mark.parametrize("through_mlflow", [False, True])
def test_the_newest_run_that_says_anything_is_read(
    make_suite: Callable[[str], Suite], store: str, monkeypatch: pytest.MonkeyPatch, through_mlflow: bool
) -> None:
    many = replace(FAMILY, pairs=tuple(replace(PAIR, seeds=seeds) for seeds in range(90)))  # more than a tag takes
    runs = [open_suite(store, make_suite(name), {}) for name in ("paper", "paper", "paper", "other")]
    write_decided(store, runs[3].parent_id, [FAMILY])
    if through_mlflow:
        monkeypatch.setattr(reading, "sqlite_path", lambda uri: None)
    assert read_decided(store, "paper") == []
    assert read_decided(store, "nothing") == []
    write_decided(store, runs[0].parent_id, [FAMILY])
    assert read_decided(store, "paper") == [FAMILY]
    write_decided(store, runs[1].parent_id, [FAMILY, many])
    assert read_decided(store, "paper") == [FAMILY, many]
