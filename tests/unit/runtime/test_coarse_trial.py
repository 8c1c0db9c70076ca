"""A trial in a coarse space with rounded cuts, from its specification to the files that it leaves."""

import json

import pytest

from dms_bench.config import Resources
from dms_bench.config.trial import Trial
from dms_bench.trial.group import alone
from dms_bench.trial.record import load
from dms_bench.trial.run import run_trial
from dms_bench.trial.storage import WorkFolder


@pytest.mark.parametrize("method", ["dms", "uniform"])
def test_kept_sizes_are_those_of_the_space(method, tmp_path):
    data = {"name": "digits", "val_fraction": 0.1, "test_fraction": 0.1}
    recipe = {"epochs": 1, "batch_size": 256, "lr": 0.1}
    coarse = [{"groups": "layer4.*.conv1", "step": 16, "min": 48}, {"stages": "layer3", "min": 1}]
    trial = Trial.model_validate(
        {
            "experiment": "coarse",
            "task": {"kind": "classification", "data": data, "image_size": 16, "channels": 1},
            "supernet": {
                "model": "resnet18",
                "args": {"channels": [32, 32, 64, 64]},
                "space": {"coarse": coarse, "round_to": 8},
            },
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
    widths = {name: sizes for name, sizes in record["sizes"].items() if name not in ("layer1", "layer2", "layer4")}
    assert all(kept % 8 == 0 for kept, _ in widths.values())
    assert any(kept < size for kept, size in widths.values())
    assert record["steps"] == {"layer4.0.conv1": 16, "layer4.1.conv1": 16}
    assert record["sizes"]["layer4.1.conv1"][0] in (48, 64)
    assert record["sizes"]["layer4.1.conv1"][1] == 64
    assert "layer3" not in record["sizes"]  # its one removable block has to stay
    (folder.path / "weights.safetensors").write_bytes((folder.path / "retrain" / "weights.safetensors").read_bytes())
    assert load(folder.path).layer4[1].conv1.out_channels == record["sizes"]["layer4.1.conv1"][0]
