"""A suite for a trained detector and a data YAML that somebody brings."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from ultralytics.nn.tasks import DetectionModel

from dms_bench import cli
from dms_bench.config import Resources, load_suite, resolve
from dms_bench.trial.group import alone
from dms_bench.trial.run import run_trial
from dms_bench.trial.storage import WorkFolder


@pytest.fixture(autouse=True)
def _boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data YAML of two classes in the working folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for kind in ("images", "labels"):
            Path("boxes", kind, split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(120, size=(96, 96, 3), dtype=np.uint8)
            pixels[20:60, 30:70] = 180 + 70 * (number % 2)
            Image.fromarray(pixels).save(f"boxes/images/{split}/{number}.png")
            Path(f"boxes/labels/{split}/{number}.txt").write_text(f"{number % 2} 0.52 0.42 0.42 0.42\n")
    content = {"path": str(tmp_path / "boxes"), "train": "images/train", "val": "images/val", "names": ["ball", "box"]}
    Path("data.yaml").write_text(yaml.safe_dump(content))


def checkpoint(names: list[str]) -> None:
    """Write `best.pt` as Ultralytics does, of a YOLOv8n that was trained on 64 x 64."""
    torch.manual_seed(0)
    network = DetectionModel("yolov8n.yaml", ch=3, nc=len(names), verbose=False)
    network.names = dict(enumerate(names))
    content = {"epoch": -1, "ema": None, "model": copy.deepcopy(network).half(), "train_args": {"imgsz": 64}}
    torch.save(content, "best.pt")


def new(*arguments: str) -> dict[str, Any]:
    assert cli._main(["new", "--data", "data.yaml", *arguments]) == 0
    experiment: dict[str, Any] = yaml.safe_load(Path("suite.yaml").read_text())["experiments"][0]
    return experiment


def test_a_trained_network_of_other_classes_becomes_a_suite_whose_smoke_variant_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(["a", "b", "c"])
    experiment = new("--model", "best.pt", "--macs", "50%")
    assert experiment["supernet"] == {"model": "yolov8n.yaml", "checkpoint": "best.pt", "fresh_head": True}
    assert (experiment["pipeline"], experiment["task"]["image_size"]) == ("DMSp", 64)
    assert experiment["task"]["data"] == {"name": "yolo", "path": "data.yaml", "test": "val", "val_fraction": 0.1}
    assert "pretrain" in experiment
    assert "it knows 3 classes, the data 2" in capsys.readouterr().out
    assert cli._main(["validate", "suite.yaml"]) == 0
    trial = resolve(load_suite("suite.yaml", smoke=True))[0]
    assert trial.method.kind == "dms"
    assert run_trial(trial, WorkFolder(tmp_path / "trial"), alone(Resources())).metrics["map50"] >= 0


def test_one_of_the_same_classes_keeps_its_head() -> None:
    checkpoint(["ball", "box"])
    experiment = new("--model", "best.pt")
    assert experiment["supernet"] == {"model": "yolov8n.yaml", "checkpoint": "best.pt"}
    assert "pretrain" not in experiment
    Path("suite.yaml").unlink()
    checkpoint(["box", "ball"])
    assert new("--model", "best.pt")["supernet"]["fresh_head"] is True


def test_a_yaml_starts_at_random() -> None:
    experiment = new("--model", "yolov8n.yaml")
    assert (experiment["pipeline"], experiment["task"]["image_size"]) == ("DMSnp", 96)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("yolov8q.yaml", "Ultralytics has no model 'yolov8q.yaml'; did you mean 'yolov8"),
        ("tensors.pt", "'tensors.pt' holds tensors alone, which do not say what network they are of: name its YAML"),
        ("none.pt", "'none.pt' does not exist"),
    ],
)
def test_mistakes_are_one_line(model: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model.0.conv.weight": torch.zeros(1)}, "tensors.pt")
    assert cli._main(["new", "--model", model, "--data", "data.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert line in said


def test_splits_that_share_pictures_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(Path("data.yaml").read_text()) | {"val": "images/train", "test": "images/val"}
    Path("data.yaml").write_text(yaml.safe_dump(content))
    assert cli._main(["new", "--data", "data.yaml", "--model", "yolov8n.yaml"]) == 2
    assert "12 of 12 pictures of 'val' are also in 'train'" in capsys.readouterr().err
    assert not Path("suite.yaml").exists()


@pytest.mark.parametrize("number", [0, -1, 99_999_999_999])
def test_a_number_of_classes_that_cannot_be_is_refused(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    content = {key: value for key, value in yaml.safe_load(Path("data.yaml").read_text()).items() if key != "names"}
    Path("data.yaml").write_text(yaml.safe_dump(content | {"nc": number}))
    assert cli._main(["new", "--data", "data.yaml", "--model", "yolov8n.yaml"]) == 2
    assert f"nc: {number} is no number of classes" in capsys.readouterr().err
