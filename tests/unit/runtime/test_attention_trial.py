"""A trial over heads and their sizes, from its specification to the network that is loaded again."""

import json

import pytest
import torch

import dms_bench
from dms_bench.config import Resources
from dms_bench.config.trial import Trial
from dms_bench.trial.group import alone
from dms_bench.trial.run import run_trial
from dms_bench.trial.storage import WorkFolder


@pytest.mark.parametrize("method", ["dms", "random"])
def test_a_trial_meets_its_budget_and_its_network_loads(method, tmp_path):
    data = {"name": "digits", "val_fraction": 0.1, "test_fraction": 0.1}
    recipe = {"epochs": 1, "batch_size": 256, "lr": 0.1}
    trial = Trial.model_validate(
        {
            "experiment": "attention",
            "task": {"kind": "classification", "data": data, "image_size": 16, "channels": 1},
            "supernet": {"model": "test_vit", "args": {"patch_size": 4}, "space": {"attention": "both"}},
            "budget": {"kind": "macs", "target": "40%"},
            "method": method,
            "search": recipe,
            "retrain": recipe,
        }
    )
    folder = WorkFolder(tmp_path / "trial")
    result = run_trial(trial, folder, alone(Resources()))
    assert not result.budget_missed
    record = json.loads((folder.path / "architecture.json").read_text())
    own = {name: sizes for name, sizes in record["sizes"].items() if name.endswith((".heads", ".qk_dims", ".v_dims"))}
    assert len(own) == 3 * 6
    assert any(kept < size for name, (kept, size) in own.items() if name.endswith(".qk_dims"))
    (folder.path / "weights.safetensors").write_bytes((folder.path / "retrain" / "weights.safetensors").read_bytes())
    network = dms_bench.load(folder.path)
    for place, block in enumerate(network.blocks):
        if hasattr(block, "attn"):
            heads, _, values = (own[f"blocks.{place}.attn.qkv.{kind}"][0] for kind in ("heads", "qk_dims", "v_dims"))
            assert (block.attn.num_heads, block.attn.proj.in_features) == (heads, heads * values)
    assert network(torch.randn(2, 1, 16, 16)).isfinite().all()
