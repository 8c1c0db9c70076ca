"""Rehearsals against what they foretell: a real run, and the paper's setting at the size of its networks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from dms_bench.config import load_suite
from dms_bench.trial.meter import costs
from dms_bench.trial.rehearsal.kinds import kinds
from dms_bench.trial.rehearsal.projection import project
from dms_bench.trial.rehearsal.store import known
from dms_bench.trial.storage import SuiteFolder, WorkFolder

TABLES = Path(__file__).parents[2] / "benchmarks" / "paper"
RECIPE = {"lr": 0.05, "batch_size": 64, "warmup_epochs": 0, "shift": 2}
PROXY = {
    "name": "glyphs",
    "task": {"kind": "classification", "data": {"name": "glyphs", "train": 2000, "val": 1000, "test": 2000}},
    "supernet": {"model": "resnet18", "args": {"channels": [16, 16, 32, 32]}},
    "pipeline": "DMSp",
    "budget": {"kind": "macs", "target": "50%"},
    "resources": {"cpus": 1.5},
    "pretrain": RECIPE | {"epochs": 8},
    "search": RECIPE | {"epochs": 4},
    "retrain": RECIPE | {"epochs": 8},
    "sweep": {"grid": {"method": ["dms", "uniform"], "seed": [0]}},
}


def dms_bench(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the command line in a folder, on one thread for each trial."""
    process = subprocess.run(
        [sys.executable, "-m", "dms_bench", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    return process.returncode, process.stdout + process.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_projection_is_within_15_percent_of_a_run(tmp_path):
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"name": "suite", "experiments": [PROXY]}))
    code, output = dms_bench(tmp_path, "rehearse", "suite.yaml", "--steps", "20")
    assert code == 0, output
    code, output = dms_bench(tmp_path, "run", "suite.yaml")
    assert code == 0, output
    folder = SuiteFolder(tmp_path / "runs" / "suite")
    works = [WorkFolder(path) for part in ("trials", "supernets") for path in (folder.path / part).iterdir()]
    took = sum(cost.seconds * cost.devices for work in works for cost in costs(work))
    kept = sum(path.stat().st_size for work in works for path in work.path.rglob("*") if path.is_file())

    suite = kinds(load_suite(tmp_path / "suite.yaml"))
    projection = project(suite, {key: kind for key, (kind, _) in known(folder).items()})
    (foretold,) = projection.device_days.values()
    print(f"device seconds: {86400 * foretold:.0f} foretold, {took:.0f} taken; disk {projection.disk_bytes(0)} {kept}")
    assert 86400 * foretold == pytest.approx(took, rel=0.15)
    # At equal MACs a search to its end leaves other weights than a few steps of it; and plots are not rehearsed.
    assert projection.disk_bytes(0) == pytest.approx(kept, rel=0.5)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images as ImageNet's is, with one picture for each of its thousand classes."""
    root = tmp_path_factory.mktemp("imagenet")
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((500, 375))
    for split in ("train", "validation"):
        for number in range(1000):
            folder = root / split / f"n{number:08d}"
            folder.mkdir(parents=True)
            picture.save(folder / "one.JPEG")
    return root


def few(imagenet: Path, *changes: str) -> list[str]:
    """Return the options by which a full profile takes few pictures at once, in one worker, on a processor."""
    given = [
        f"task.data.root={imagenet}",
        "task.data.train_images=null",
        "resources={workers: 1, cpus: 1.5, gpus: 0}",
        "search.batch_size=4",
        "retrain.batch_size=4",
        *changes,
    ]
    return [word for change in given for word in ("--set", change)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_full_setting_of_table_4_is_rehearsed_at_the_size_of_its_networks(tmp_path, imagenet):
    only = ["--only", "experiment=en350,b0-designed", "--only", "method=dms,supernet"]
    table = str(TABLES / "table04.yaml")
    code, output = dms_bench(tmp_path, "rehearse", table, "--profile", "full", *only, *few(imagenet))
    assert code in (0, 2), output
    assert "Traceback" not in output
    print(output)
    rehearsed = known(SuiteFolder(tmp_path / "runs" / "table04-full"))
    found: dict[str, Any] = {kind.name: kind for kind, _ in rehearsed.values()}
    assert set(found) == {"en350 dms", "b0-designed supernet"}
    training = next(stage for stage in found["en350 dms"].stages if stage.name == "search").training
    # 990 of 1000 pictures, four at a time; 30 epochs of them are foretold.
    assert (training.samples, training.whole, len(training.steps)) == (4, 247, 3)
    assert training.compute > 0
