from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from dms_bench.scaling import find_space
from dms_bench.trial.weight_sharing import train_sharing
from tests.unit.classification.classification_helpers import NORMLESS, MemoryLoop, glyph_task, recipe, same

HERE = Path(__file__).parent


def test_two_workers_agree_with_each_other_and_with_one(tmp_path: Path) -> None:
    script = HERE / "two_workers.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ranks = [subprocess.Popen([sys.executable, script, str(rank), tmp_path], env=environment) for rank in (0, 1)]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    one, other = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    for name in ("trained", "search", "plain", "sharing"):
        assert same(one[name], other[name]), name
    assert one["shared"] == other["shared"]
    assert one["score"] == other["score"] == 1.0  # the leading worker's

    # The same global batches: without batch norm, the same training as by one worker.
    task = glyph_task()
    start = task.build(NORMLESS).state_dict()
    alone = task.fit(task.build(NORMLESS), recipe(epochs=1), MemoryLoop()).state_dict()
    for name, value in alone.items():
        assert torch.allclose(one["plain"][name], value, atol=1e-4), name
    assert not torch.allclose(start["head.weight"], alone["head.weight"], atol=1e-2)

    # And the same subnets.
    sharing = task.build(NORMLESS)
    space = find_space(sharing, task.example_input())
    train_sharing(task, sharing, space, recipe(epochs=1), MemoryLoop(), seed=0)
    for name, value in sharing.state_dict().items():
        assert torch.allclose(one["sharing"][name], value, atol=1e-4), name
    assert not torch.allclose(sharing.state_dict()["head.weight"], alone["head.weight"], atol=1e-3)
