"""The version of a suite: its trials, and what they share, are others."""

from __future__ import annotations

from pathlib import Path

import yaml

from dms_bench.config import Trial, load_suite, resolve
from dms_bench.tracking import names
from dms_bench.tracking.content import trial_tags
from dms_bench.trial.work import supernet_hash


def only_trial(folder: Path, version: int | None) -> Trial:
    recipe = {"epochs": 1, "lr": 0.1, "batch_size": 8}
    experiment = {
        "name": "e",
        "task": {"kind": "classification", "data": "glyphs"},
        "supernet": {"model": "resnet18"},
        "pipeline": "DMSp",
        "budget": {"kind": "macs", "target": 0.5},
        "method": "uniform",
        "pretrain": recipe,
        "retrain": recipe,
    }
    path = folder / "suite.yaml"
    path.write_text(
        yaml.safe_dump({"name": "s", "experiments": [experiment]} | ({} if version is None else {"version": version}))
    )
    (trial,) = resolve(load_suite(path))
    return trial


def test_another_version_has_other_trials_and_supernets(tmp_path: Path) -> None:
    unsaid, first, second = (only_trial(tmp_path, version) for version in (None, 1, 2))
    assert unsaid.hash == first.hash != second.hash
    assert supernet_hash(unsaid) == supernet_hash(first) != supernet_hash(second)
    assert [trial_tags(trial)[names.VERSION] for trial in (unsaid, second)] == ["1", "2"]
