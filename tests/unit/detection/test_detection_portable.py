"""Exported networks: the same result from Ultralytics' and PyTorch's modules alone."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import ultralytics
import yaml
from ultralytics.nn.tasks import DetectionModel

from dms_bench.config.supernet import SupernetSpec
from dms_bench.scaling import count, cut, find_space
from dms_bench.scaling.cut.calls import PatchedForward
from dms_bench_tasks.detection import model as models
from dms_bench_tasks.detection.measure import evaluate
from dms_bench_tasks.detection.portable import bound_layers, portable, save
from tests.unit.detection.detection_helpers import (
    CPU,
    TINY,
    MemoryLoop,
    cut_at_random,
    lively,
    random_mask,
    recipe,
    task,
)

EXAMPLE = models.example_input(2, 64)


def outputs(network, images):
    with torch.no_grad(), models.library_form(network):
        return network.eval()(images)[0]


@pytest.mark.parametrize(
    "name",
    [
        "yolov8n.yaml",
        "yolo11n.yaml",
        "yolo26n.yaml",
        "yolov8.yaml",
        pytest.param("yolov10n.yaml", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_cut_network_and_its_portable_form_are_the_same(name, seed):
    multiples = {"depth_multiple": 0.67, "width_multiple": 0.25} if name == "yolov8.yaml" else {}
    network = lively(models.build(SupernetSpec(model=name, args=multiples), 5, 0))
    small = cut_at_random(network, EXAMPLE, seed).double()
    moved = portable(small)
    assert type(moved) is DetectionModel
    assert not bound_layers(moved)
    assert torch.equal(outputs(moved, EXAMPLE.double()), outputs(small, EXAMPLE.double()))
    folded = copy.deepcopy(moved).fuse(verbose=False)
    torch.testing.assert_close(
        outputs(folded, EXAMPLE.double()), outputs(small, EXAMPLE.double()), rtol=1e-9, atol=1e-9
    )
    assert sum(p.numel() for p in moved.parameters()) == sum(p.numel() for p in small.parameters())


#: Detection YAMLs that stand for their kind in the fast run: layers that read `-2`, an old head, two heads.
REPRESENTATIVE = {"yolov3-tiny.yaml", "yolov3.yaml", "yolov5.yaml", "yolov10n.yaml"}
#: The narrowest network of a YAML that lists no sizes. Those of YOLOv9 and v10 are a size each, as they stand.
NARROW = {"depth_multiple": 0.34, "width_multiple": 0.125}


def shipped():
    """Every YAML of a detection network in Ultralytics, with the arguments of its smallest size."""
    found = []
    for path in sorted((Path(ultralytics.__file__).parent / "cfg" / "models").glob("*/*.yaml")):
        content = yaml.safe_load(path.read_text())
        if content["head"][-1][2] not in models.HEADS:
            continue
        own = NARROW if path.parent.name == "v3" else {}
        args = {"scale": next(iter(content["scales"]))} if content.get("scales") else own
        marks = () if path.name in REPRESENTATIVE else (pytest.mark.slow,)
        found.append(pytest.param(path.name, args, id=path.stem, marks=marks))
    return found


def test_the_shipped_networks_are_found():
    names = {parameter.values[0] for parameter in shipped()}
    assert len(names) >= 20
    assert names >= REPRESENTATIVE


@pytest.mark.parametrize(("name", "args"), shipped())
def test_every_network_of_ultralytics_and_its_portable_form_are_the_same(name, args):
    network = lively(models.build(SupernetSpec(model=name, args=args), 3, 0))
    expected, found = (outputs(model, EXAMPLE[:1]) for model in (network, portable(network)))
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def own_yaml(folder, backbone):
    """A network of one's own behind whose backbone, of 32 channels at stride 4, is a head."""
    content = {"nc": 3, "backbone": backbone, "head": [[[len(backbone) - 1], 1, "Detect", ["nc"]]]}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return SupernetSpec(model=str(path))


@pytest.mark.parametrize(
    "backbone",
    [
        # The block between becomes four layers: what counts back from behind it counts another number of them.
        [
            [-1, 1, "Conv", [16, 3, 2]],
            [-1, 1, "Conv", [32, 3, 2]],
            [-1, 1, "C2f", [32, True]],
            [-2, 1, "Conv", [32, 1, 1]],
            [[-1, -2, -3], 1, "Concat", [1]],
            [-1, 1, "Conv", [32, 1, 1]],
        ],
        # Both halves of the first layer read the input.
        [[-1, 1, "C2f", [16]], [-1, 1, "Conv", [32, 3, 2]], [-1, 1, "Conv", [32, 3, 2]]],
    ],
    ids=["back", "first"],
)
def test_layers_read_what_they_read_in_the_network(backbone, tmp_path):
    network = lively(models.build(own_yaml(tmp_path, backbone), 3, 0))
    torch.testing.assert_close(outputs(portable(network), EXAMPLE), outputs(network, EXAMPLE), rtol=1e-4, atol=1e-4)


def test_a_checkpoint_that_needs_dms_bench_is_not_written(tmp_path, caplog):
    network = models.build(TINY, 3, 0)
    network.model[0].forward = PatchedForward(network.model[0], [])
    assert save(network, {0: "a"}, 64, tmp_path) == []
    assert not list(tmp_path.iterdir())
    assert caplog.messages == ["no best.pt is written: its Conv would run with dms_bench alone"]


def test_removed_bottlenecks_leave_no_layer_behind():
    network = models.build(SupernetSpec(model="yolov8n.yaml"), 5, 0)
    space = find_space(network, EXAMPLE)
    mask = space.full()
    mask[space.width_elements :] = 0
    small = cut(network, space, space.architecture(mask))
    kinds = [type(layer).__name__ for layer in portable(small).model]
    assert kinds.count("Bottleneck") == 4  # those of the neck, which add nothing
    assert "Identity" not in kinds
    assert len(portable(network).model) == len(kinds) + 6


def test_the_searched_network_is_left_as_it_is():
    network = models.build(TINY, 3, 0).eval()
    before = [(type(layer), layer.i, layer.f) for layer in network.model]
    expected = network(EXAMPLE)
    portable(network)
    assert [(type(layer), layer.i, layer.f) for layer in network.model] == before
    assert torch.equal(network(EXAMPLE), expected)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network that was cut, trained until it finds something on any processor, exported, with our measure of it."""
    folder = tmp_path_factory.mktemp("exported")
    own = task(train=64, classes=1, objects=1, difficulty=0)
    network = models.build(TINY, 1, 0)
    space = find_space(network, EXAMPLE)
    small = cut(network, space, space.architecture(random_mask(space, 3, 0.6, 0.9)))
    small = own.fit(small, recipe(20, mosaic=0, lr0=0.01), MemoryLoop(folder))
    measured = own.evaluate(small, "test", CPU)
    files = own.export(small, folder)
    return folder, own, small, measured, files


def test_an_export_holds_nothing_of_ours(exported):
    folder, _, small, _, files = exported
    assert files == [folder / "best.pt", folder / "train.py"]
    needed = torch.serialization.get_unsafe_globals_in_checkpoint(folder / "best.pt")
    assert needed
    assert not [name for name in needed if name.startswith(("dms_bench", "dms_bench_tasks"))]
    saved = torch.load(folder / "best.pt", weights_only=False)["model"].state_dict()
    expected = portable(small).state_dict()
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in saved)  # no precision was lost


#: Finds neither dms_bench nor tasks, whatever the working folder and the environment's paths.
ALONE = """
import sys
class Hidden:
    def find_spec(self, name, *_):
        if name.split('.')[0] in ('dms_bench', 'dms_bench_tasks'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Hidden())
try:
    import dms_bench
except ModuleNotFoundError:
    pass
else:
    raise SystemExit('dms_bench is there')
import json, torch
torch.set_num_threads(1)
"""


def run_alone(folder, code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", ALONE + code, *map(str, arguments)], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_yolo_opens_it_without_us_and_measures_what_we_measure(exported, tmp_path):
    folder, own, _, measured, _ = exported
    code = """
from ultralytics import YOLO
network = YOLO(sys.argv[1])
found = network.val(data=sys.argv[2], split='test', imgsz=64, batch=32, plots=False, project=sys.argv[3], verbose=False)
image = sys.argv[4]
boxes = network.predict(image, imgsz=64, conf=0.01, verbose=False, project=sys.argv[3])[0].boxes
print()
print(json.dumps({'map50_95': found.box.map, 'map50': found.box.map50, 'boxes': len(boxes), 'names': network.names}))
"""
    image = next(Path(own._source.description["test"]).glob("*.png"))
    found = run_alone(tmp_path, code, folder / "best.pt", own._source.path, tmp_path, image)
    assert 100 * found["map50_95"] == measured["map50_95"]
    assert 100 * found["map50"] == measured["map50"]
    assert measured["map50"] > 0  # or equality would say nothing
    assert list(found["names"].values()) == list(own._source.description["names"].values())
    assert found["boxes"] > 0


def test_the_measures_count_the_fused_network(exported):
    _, own, small, measured, _ = exported
    folded = copy.deepcopy(portable(small)).fuse(verbose=False)
    assert measured["params_fused"] == sum(p.numel() for p in folded.parameters())
    whole = count(small, own.example_input(1))
    assert measured["macs_fused"] == whole.macs
    assert measured["params_fused"] < whole.params


def test_measuring_changes_nothing(exported):
    _, own, small, measured, _ = exported
    before = copy.deepcopy(small.state_dict())
    small.train()
    assert evaluate(small, own._source.path, "test", 64, CPU) == measured
    assert small.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


@pytest.mark.slow
def test_it_exports_to_onnx_without_us(exported, tmp_path):
    pytest.importorskip("onnxruntime")
    folder, _, _, _, _ = exported
    code = """
import numpy, onnxruntime
from ultralytics import YOLO
network = YOLO(sys.argv[1])
path = network.export(format='onnx', imgsz=64, simplify=False)
images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
found = onnxruntime.InferenceSession(path).run(None, {'images': images.numpy()})[0]
with torch.no_grad():
    expected = YOLO(sys.argv[1]).model.eval()(images)[0].numpy()
print()
print(json.dumps({'error': float(abs(found - expected).max()), 'largest': float(abs(expected).max())}))
"""
    found = run_alone(tmp_path, code, folder / "best.pt")
    assert found["error"] < 1e-4 * found["largest"]


@pytest.mark.slow
def test_its_script_trains_it_on_in_its_shape(exported, tmp_path):
    folder, own, small, _, _ = exported
    code = """
import runpy, pathlib
folder, data, out = sys.argv[1:]
options = ['epochs=1', 'imgsz=64', 'batch=8', 'name=on', 'plots=False', 'optimizer=SGD', 'amp=False']
sys.argv = ['train.py', f'data={data}', f'project={out}', *options]
runpy.run_path(str(pathlib.Path(folder) / 'train.py'), run_name='__main__')
from ultralytics import YOLO
again = YOLO(str(pathlib.Path(out) / 'on' / 'weights' / 'best.pt'))
shapes = [list(p.shape) for p in again.model.parameters()]
print()
print(json.dumps({'parameters': sum(p.numel() for p in again.model.parameters()), 'shapes': shapes}))
"""
    found = run_alone(tmp_path, code, folder, own._source.path, tmp_path)
    expected = [list(p.shape) for p in portable(small).parameters()]
    assert found["shapes"] == expected
