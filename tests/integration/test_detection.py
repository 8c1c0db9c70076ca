"""A detection suite as a user runs it: killed in search and retraining, finished, exported, opened by Ultralytics."""

import json
import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("ultralytics")

RECIPE = {"batch_size": 8, "nbs": 8, "optimizer": "AdamW", "lr0": 0.002, "momentum": 0.9, "warmup_epochs": 0}
SCENES = {"name": "glyph-scenes", "train": 24, "val": 8, "test": 8, "classes": 3, "objects": 3}
EXPERIMENT = {
    "name": "yolo",
    "task": {"kind": "detection", "image_size": 64, "data": SCENES},
    "supernet": {"model": "yolov8.yaml", "args": {"depth_multiple": 0.34, "width_multiple": 0.125}},
    "search": {"epochs": 3, **RECIPE},
    "retrain": {"epochs": 3, **RECIPE},
}


def checkpoints(command, name, stage, epoch):
    return [
        path
        for folder in command.trials(name).values()
        for path in folder.stage(stage).path.glob(f"checkpoint-{epoch:05d}-*.pt")
    ]


def histories(command, name):
    """Epochs recorded for each stage of each trial."""
    return {
        (key, stage): [record["epoch"] for record in folder.stage(stage).history()]
        for key, folder in command.trials(name).items()
        for stage in ("search", "retrain")
    }


@pytest.mark.slow
def test_a_suite_that_is_killed_twice_ends_like_an_undisturbed_one(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command.write("calm", EXPERIMENT | {"method": "dms"})
    code, output = command.run("calm")
    assert code == 0, output
    assert "done yolo-dms" in output
    for noise in ("Ultralytics", "it/s", "engine/trainer", "Class ", "Traceback"):
        assert noise not in output

    command.write("killed", EXPERIMENT | {"method": "dms"})
    for stage in ("search", "retrain"):
        driver = command.start("killed")
        command.wait_for(lambda stage=stage: checkpoints(command, "killed", stage, 1))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    code, output = command.run("killed")
    assert code == 0, output
    assert all(epochs == [1, 2, 3] for epochs in histories(command, "killed").values())
    (calm,), (killed,) = (command.results(name).values() for name in ("calm", "killed"))
    assert (calm.macs, calm.params, calm.value) == (killed.macs, killed.params, killed.value)
    assert calm.metrics == killed.metrics
    assert {"map50", "macs_fused", "params_fused"} <= calm.metrics.keys()

    # The same as two commands of a user: export, and open it without dms_bench.
    exported = subprocess.run(
        [sys.executable, "-m", "dms_bench", "export", "yolo-dms", "--suite", "killed", "--output", "found"],
        cwd=command.folder,
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert exported.returncode == 0, exported.stdout + exported.stderr
    assert {"best.pt", "train.py", "architecture.json", "weights.safetensors"} <= {
        path.name for path in (command.folder / "found").iterdir()
    }
    data = next((tmp_path / "cache" / "dms_bench").glob("glyph-scenes-*/data.yaml"))
    code = (
        "import sys, json\nsys.modules['dms_bench'] = sys.modules['dms_bench_tasks'] = None\n"
        "from ultralytics import YOLO\n"
        f"found = YOLO('found/best.pt').val(data={str(data)!r}, split='test', imgsz=64, batch=32, plots=False)\n"
        "print()\nprint(json.dumps(found.box.map))"
    )
    offline = {"YOLO_CONFIG_DIR": str(tmp_path / "cache" / "dms_bench" / "ultralytics"), "YOLO_OFFLINE": "true"}
    opened = subprocess.run(
        [sys.executable, "-c", code], cwd=command.folder, env=os.environ | offline, capture_output=True, text=True
    )
    assert opened.returncode == 0, opened.stderr
    assert 100 * json.loads(opened.stdout.splitlines()[-1]) == killed.value


@pytest.mark.slow
def test_two_workers_under_ray_train(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command.write("pair", EXPERIMENT | {"method": "dms", "resources": {"workers": 2}})
    code, output = command.run("pair")
    assert code == 0, output
    assert all(epochs == [1, 2, 3] for epochs in histories(command, "pair").values())
    (result,) = command.results("pair").values()
    assert {cost.devices for cost in result.costs} == {2.0}
