"""A network that was cut, written and built again: without a trace, without a pickle, the same to the bit."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch
from torch import nn

import dms_bench
from dms_bench.config import Trial
from dms_bench.errors import UserError
from dms_bench.scaling import cut, find_space, plan_surgery
from dms_bench.trial import record
from dms_bench_tasks.detection.spec import DetectionTask
from dms_bench_tasks.language.spec import LanguageTask

#: Networks with pruned heads, grouped convolutions, squeeze-excite and removed blocks.
MODELS = {"resnet18": {"channels": [8, 8, 16, 16]}, "test_efficientnet": {}, "test_vit": {}}
CASES = [*((model, "heads") for model in MODELS), ("test_vit", "both")]


def _write(folder, model, args, attention="heads"):
    """Export a network of which random elements were cut; returns an input and its output."""
    trial = Trial.model_validate(
        {
            "experiment": "toy",
            "task": {"kind": "classification", "image_size": 32, "channels": 3,
                     "data": {"name": "timm", "root": "/no/such/folder", "classes": 7}},
            "supernet": {"model": model, "args": args, "space": {"attention": attention}},
            "budget": {"kind": "macs", "target": "50%"},
            "method": "random",
            "retrain": {"epochs": 1, "lr": 0.1},
        }
    )  # fmt: skip
    task = trial.task.load_implementation()(trial.task, 3)
    supernet, example = task.build(trial.supernet), task.example_input()
    space = find_space(supernet, example, attention=trial.supernet.space.attention)
    mask = (torch.rand(space.units.total, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    for start in space.units.starts:
        mask[start] = 1
    architecture = space.architecture(mask)
    network = cut(supernet, space, architecture)
    surgery = plan_surgery(supernet, space, architecture)
    record.write_description(
        folder / record.ARCHITECTURE, record.describe(trial, trial.task, space, architecture, surgery, "test")
    )
    record.save_weights(network, folder / record.WEIGHTS)
    with torch.no_grad():
        return example, network.eval()(example)


def test_a_record_names_the_library_that_defines_the_network(tmp_path):
    _write(tmp_path, "resnet18", MODELS["resnet18"])
    versions = json.loads((tmp_path / record.ARCHITECTURE).read_text())["versions"]
    assert versions == {name: version(name) for name in ("dms-bench", "torch", "timm")}
    assert DetectionTask.libraries == ("ultralytics",)
    assert LanguageTask.libraries == ("transformers",)


@pytest.mark.parametrize(("model", "attention"), CASES)
def test_a_fresh_process_builds_the_same_network_without_tracing(tmp_path, model, attention):
    example, expected = _write(tmp_path, model, MODELS[model], attention)
    torch.save((example, expected), tmp_path / "expected.pt")
    script = """if True:
        import sys, pickle, torch
        example, expected = torch.load("expected.pt", weights_only=True)
        import dms_bench
        assert "dms_bench.trial.record" not in sys.modules
        import dms_bench.scaling.find, dms_bench.scaling.tracing.tracer
        def refuse(*_, **__):
            raise AssertionError("traced or unpickled")
        dms_bench.scaling.tracing.tracer.Tracer.run = pickle.load = torch.load = refuse
        network = dms_bench.load(".")
        with torch.no_grad():
            print(torch.equal(network(example), expected), network.training)
    """
    # The last bit of a sum depends on the number of threads, which other tests may have changed in this process.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.stdout == "True False\n", done.stderr


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    _write(folder, "resnet18", MODELS["resnet18"])
    return folder


def _changed(change):
    """Return what changes the description."""

    def damage(folder):
        path = folder / record.ARCHITECTURE
        description = json.loads(path.read_text())
        change(description)
        path.write_text(json.dumps(description))

    return damage


def _cut_off(folder):
    path = folder / record.WEIGHTS
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / record.ARCHITECTURE).unlink(), "no exported network there"),
        (lambda folder: (folder / record.ARCHITECTURE).write_text("{"), "not an exported network"),
        (lambda folder: (folder / record.ARCHITECTURE).write_text("[]"), "not an exported network"),
        (lambda folder: (folder / record.WEIGHTS).unlink(), "weights"),
        (_cut_off, "not this network's weights"),
        (_changed(lambda content: content.update(format=99)), "format 99"),
        (_changed(lambda content: content.pop("surgery")), "'surgery'"),
        (_changed(lambda content: content["supernet"].update(model="resnet81")), "no model 'resnet81'"),
        (_changed(lambda content: content["surgery"].update(skipped=["layer9.0"])), "layer9"),
        (_changed(lambda content: content["surgery"].update(tuples={"layer1.0": 2})), "tuples: of another version"),
        (_changed(lambda content: content["surgery"]["shapes"].update(nothing=[3])), "nothing"),
        (_changed(lambda content: content["surgery"].update(shapes={})), "not this network's weights"),
        (_changed(lambda content: content["surgery"].update(attributes={"": {"x": []}})), "attributes"),
    ],
)
def test_what_is_damaged_is_one_line(written, tmp_path, damage, message):
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        dms_bench.load(tmp_path)
    assert "\n" not in str(caught.value)


class _Positions(nn.Module):
    """Adds positions, which are computed and so not saved, to the features of a wider layer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.register_buffer("positions", torch.linspace(0, 1, 8), persistent=False)

    def forward(self, x):
        return self.last(self.first(x) + self.positions)


def test_a_buffer_that_the_cut_changes_is_saved(tmp_path):
    model = _Positions()
    space = find_space(model, torch.ones(2, 4))
    architecture = space.architecture(torch.tensor([0, 1, 0, 1, 1, 0, 0, 1.0]))
    small = cut(model, space, architecture)
    record.save_weights(small, tmp_path / "weights.safetensors")
    again = _Positions()
    record.apply_structure(again, plan_surgery(model, space, architecture))
    record.load_weights(again, tmp_path / "weights.safetensors")
    assert torch.equal(again.positions, model.positions[[1, 3, 4, 7]])
    assert torch.equal(again(torch.ones(1, 4)), small(torch.ones(1, 4)))
