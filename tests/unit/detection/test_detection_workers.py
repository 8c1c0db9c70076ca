"""Two workers over gloo: the same network on both, and much like that of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.unit.detection.detection_helpers import task

HERE = Path(__file__).parent


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_two_workers_agree_and_go_on_like_undisturbed_ones(tmp_path):
    task().prepare()
    script = HERE / "two_workers.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[2])}
    ranks = [subprocess.Popen([sys.executable, script, str(rank), tmp_path], env=environment) for rank in (0, 1)]
    try:
        assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    one, other = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=False) for rank in (0, 1))
    for name in ("trained", "resumed", "search", "weights"):
        assert same(one[name], other[name]), name
    assert one["architecture"] == other["architecture"]
    assert one["metrics"] == other["metrics"]
    assert one["search"]["relaxation.ratios"].max() > 0
    # Weights go on as they were; statistics of batch norm, each worker's own, go on from the leader's.
    for name, tensor in one["trained"].items():
        if "running" not in name:
            torch.testing.assert_close(one["resumed"][name], tensor, rtol=0, atol=1e-6, msg=name)
