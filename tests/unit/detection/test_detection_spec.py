"""What a suite may say about detection, and what it is told where Ultralytics is missing."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
from pydantic import ValidationError

from dms_bench.errors import UserError
from dms_bench_tasks.detection import offline
from dms_bench_tasks.detection.spec import DetectionRecipe, DetectionTask, GlyphScenes, YoloData
from dms_bench_tasks.detection.task import Detection


def test_data_are_named_or_described():
    assert DetectionTask(data="glyph-scenes").data == GlyphScenes()
    assert DetectionTask(data="coco.yaml").data == YoloData(path="coco.yaml")
    assert DetectionTask(data={"name": "glyph-scenes", "train": "2k"}).data.train == 2000
    assert DetectionTask(data="coco.yaml").label() == "coco 640px"
    assert DetectionTask(data="/data/sets/boats.yml", image_size=320).label() == "boats 320px"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"data": "glyphs"}, "glyph-scenes"),
        ({"data": {"name": "glyph-scenes", "trian": 3}}, "did you mean 'train'"),
        ({"data": "coco.yaml", "image_size": 100}, "multiple of 32"),
        ({"data": {"name": "glyph-scenes", "classes": 17}}, "less than or equal to 16"),
        ({"data": {"name": "yolo", "path": "a.yaml", "test": "train"}}, "'val' or 'test'"),
    ],
)
def test_mistakes_are_named(fields, text):
    with pytest.raises(ValidationError) as failed:
        DetectionTask.model_validate(fields)
    assert text in str(failed.value)


def test_a_recipe_knows_ultralytics_options_and_no_others():
    assert DetectionRecipe(epochs=3).lr0 == 0.01
    with pytest.raises(ValidationError, match=r"did you mean .*'lr0'"):
        DetectionRecipe.model_validate({"epochs": 3, "lr": 0.1})
    with pytest.raises(ValidationError, match="optimizer"):
        DetectionRecipe.model_validate({"epochs": 3, "optimizer": "auto"})


@pytest.mark.skipif(find_spec("ultralytics") is None, reason="optional: pip install dms-bench[detection]")
def test_defaults_are_ultralytics_own():
    from ultralytics.cfg import get_cfg

    own = get_cfg()
    ours = DetectionRecipe(epochs=1)
    different = {
        name
        for name in DetectionRecipe.model_fields
        if getattr(own, {"batch_size": "batch"}.get(name, name)) != getattr(ours, name)
    }
    assert different == {"epochs", "optimizer", "amp"}  # neither `auto` nor what must be fetched to be checked


def test_reading_a_suite_imports_neither_torch_nor_ultralytics():
    code = "import sys, dms_bench_tasks.detection.spec; print(*{'torch', 'ultralytics', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_without_ultralytics_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(offline, "find_spec", lambda name: None)
    with pytest.raises(UserError) as failed:
        Detection(DetectionTask(data="glyph-scenes"), 0)
    assert "dms-bench[detection]" in str(failed.value)
    assert "\n" not in str(failed.value)


def test_without_ultralytics_a_suite_gets_one_line_and_tasks_are_listed(tmp_path):
    """In a process in which Ultralytics cannot be found."""
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "name: s\nexperiments:\n"
        "- {name: e, task: {kind: detection, data: glyph-scenes}, supernet: {model: yolov8n.yaml},"
        " budget: {kind: macs, target: 30%}, method: uniform, retrain: {epochs: 1}}\n"
    )
    code = (
        "import sys\nclass Hidden:\n def find_spec(self, name, *_):\n"
        "  if name.split('.')[0] == 'ultralytics': raise ModuleNotFoundError(name)\n"
        "import importlib.util as u\nreal = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'ultralytics' else real(name, *a)\n"
        "sys.meta_path.insert(0, Hidden())\nfrom dms_bench.cli import main\nmain()"
    )

    def run(*words):
        return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)

    listed = run("ls", "tasks")
    assert listed.returncode == 0
    assert "detection" in listed.stdout
    planned = run("plan", str(suite))
    assert planned.returncode == 2
    output = planned.stdout + planned.stderr
    assert "Traceback" not in output
    assert "dms-bench[detection]" in " ".join(output.split())
