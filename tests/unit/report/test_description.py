"""What the pages of MLflow begin with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dms_bench.config.trial import Trial
from dms_bench.errors import UserError
from dms_bench.report.description import describe_suite, describe_trial, kept
from dms_bench.tracking import StageCost, TrialResult

RECORD = {
    "architecture": {"groups": {}, "stages": {"layer1": [0], "layer2": [0, 1]}},
    "sizes": {"conv1": [16, 16], "layer1.0.conv1": [4, 16], "layer1": [1, 2], "layer2": [2, 2]},
}


def test_a_trial_is_told_by_its_result_its_size_and_what_it_keeps(make_trial: Callable[..., Trial]) -> None:
    trial = make_trial("dms", 3)
    costs = [
        StageCost(
            stage="search", device="EPYC", kind="cpu", devices=1, seconds=1, samples=9, macs=137e9, processor_seconds=1
        )
    ]
    result = TrialResult(
        metric="top1", value=77.64, macs=1_040_000, params=148_000, supernet_macs=3_480_000, supernet_params=716_000,
        latency_ms=3.6, supernet_latency_ms=4.98, targets={"macs": 1.04e6}, costs=costs, seed=3,
    )  # fmt: skip
    text = describe_trial(trial, result, "0123abcd", RECORD)
    assert text.startswith("**top1 [%] 77.6**: `resnet18`, dms at macs 30%, seed 3, DMSnp")
    assert "| MACs | 1.04M | 3.48M |" in text
    assert "| parameters | 148k | 716k |" in text
    assert "| latency | 3.60 ms | 4.98 ms |" in text
    assert "| MACs of the search | 137G |  |" in text
    assert kept(RECORD) in text
    assert "(get-artifact?path=architecture.png&run_uuid=0123abcd)" in text
    assert f"dms-bench export {trial.name} --output DIR" in text


def test_what_is_kept_is_counted_over_groups_and_stages() -> None:
    assert kept(RECORD) == (
        "The network keeps 62% of the channels and heads in 2 groups, of which 1 is narrower than in the supernet "
        "and 3 of 4 blocks that may go."
    )
    widths = {"architecture": {"stages": {}}, "sizes": {"a": [8, 8], "b": [8, 8]}}
    assert kept(widths) == (
        "The network keeps 100% of the channels and heads in 2 groups, of which 0 are narrower than in the supernet."
    )
    assert kept({"architecture": {"stages": {}}, "sizes": {}}) == "The network keeps all of the supernet."


def test_a_suite_is_told_by_its_leaderboard(board_uri: str) -> None:
    text = describe_suite(board_uri, "quick", "What it is for.\n")
    assert text.startswith("What it is for.\n\n### ")
    assert "| macs 30% | **dms** | **73.0 ± " in text
    with pytest.raises(UserError, match="no suite"):
        describe_suite(board_uri, "none", "")
