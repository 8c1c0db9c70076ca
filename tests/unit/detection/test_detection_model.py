"""Networks: the same as Ultralytics' own, in a form that can be cut."""

import copy

import pytest
import torch
import yaml
from torch import nn
from ultralytics.nn.modules.block import DFL
from ultralytics.nn.tasks import DetectionModel

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.scaling import count
from dms_bench_tasks.detection import model as models
from dms_bench_tasks.detection.blocks import CrossStage
from tests.unit.detection.detection_helpers import TINY, cut_at_random, lively

#: One of every family; what a version of Ultralytics lacks is reported, not silently left out.
NAMES = ("yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml")
EXAMPLE = models.example_input(2, 64)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_computes_what_ultralytics_own_does(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        own = DetectionModel(name, ch=3, nc=5, verbose=False)
    ours = models.build(SupernetSpec(model=name), 5, seed=3)
    assert any(isinstance(module, CrossStage) for module in ours.modules())
    assert sum(p.numel() for p in own.parameters()) == sum(p.numel() for p in ours.parameters())
    own, ours = own.double().eval(), ours.double().eval()
    with torch.no_grad(), models.library_form(ours):
        expected, found = own(EXAMPLE.double())[0], ours(EXAMPLE.double())[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_halves_have_the_statistics_and_scales_of_their_rows():
    """Batch norms are split as well as weights."""
    from dms_bench_tasks.detection.blocks import split_blocks

    own = lively(DetectionModel("yolov8n.yaml", ch=3, nc=5, verbose=False))
    split = copy.deepcopy(own)
    split_blocks(split.model)
    own, split = own.double(), split.double().eval()
    with torch.no_grad():
        torch.testing.assert_close(split(EXAMPLE.double())[0], own(EXAMPLE.double())[0], rtol=0, atol=1e-9)


def test_a_seed_decides_the_weights_and_nothing_else():
    state = torch.get_rng_state()
    first, again, other = (models.build(TINY, 3, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [torch.cat([p.flatten() for p in network.parameters()]) for network in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_suites_own_multiples_count():
    narrow, wide = (
        models.build(SupernetSpec(model="yolov8.yaml", args={"depth_multiple": 0.5, "width_multiple": w}), 3, 0)
        for w in (0.25, 0.5)
    )
    assert narrow.model[0].conv.out_channels == 16
    assert wide.model[0].conv.out_channels == 32
    # C2f with 3 or 6 repeats at depth 0.5.
    assert [len(layer.m) for layer in wide.model if isinstance(layer, CrossStage)][:4] == [2, 3, 3, 2]
    # The published supernet of table 9 is the default of 80 classes.
    assert len(models.build(SupernetSpec(model="yolov8n.yaml"), 3, 0).model[2].m) == 1


@pytest.mark.parametrize(
    ("model", "args", "text"),
    [
        ("yolov8q.yaml", {}, "did you mean"),
        ("yolov8n", {}, "yolov8n.yaml"),
        ("yolov8.yaml", {}, "yolov8s.yaml"),
        ("runs/best.pt", {}, "give its path as supernet.checkpoint"),
        ("yolov8n.yaml", {"width": 0.5}, "did you mean 'width_multiple'"),
        ("yolov8n-seg.yaml", {}, "no detection network"),
        ("yolov8.yaml", {"width_multiple": "wide"}, "width_multiple"),
    ],
)
def test_mistakes_get_one_line(model, args, text):
    with pytest.raises(UserError) as failed:
        models.build(SupernetSpec(model=model, args=args), 3, 0)
    assert text in str(failed.value)
    assert "\n" not in str(failed.value)


HEAD = [[[0], 1, "Detect", ["nc"]]]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"backbone": [[-1, 1, "Conf", [16, 3, 2]]], "head": HEAD}, "layer 0 is a 'Conf', .* did you mean 'Conv'"),
        ({"backbone": [[-1, 1, "nn.Convolution", [16]]], "head": HEAD}, "layer 0 is a 'nn.Convolution'"),
        ({"backbone": [[-1, 1, "Conv"]], "head": HEAD}, r"layer 0 is .*, not \[from, repeats, module, arguments\]"),
        ({"backbone": [[-2, 1, "Conv", [16, 3, 2]]], "head": HEAD}, "own.yaml' with"),
        ({"backbone": [], "head": []}, "no layers under 'backbone' and 'head'"),
        ({"backbone": [[-1, 1, "Conv", [16, 3, 2]]], "head": HEAD, "channels": 1}, "channels: 1"),
        ("a text", "own.yaml"),
    ],
)
def test_odd_yamls_of_ones_own_get_one_line(content, text, tmp_path):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=text) as failed:
        models.build(SupernetSpec(model=str(tmp_path / "own.yaml")), 3, 0)
    assert "\n" not in str(failed.value)


def test_a_yaml_of_ones_own_needs_no_number_of_classes(tmp_path):
    content = {
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "SPPF", [16, 5]]],
        "head": [[[1], 1, "Detect", ["nc"]]],
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    network = models.build(SupernetSpec(model=str(tmp_path / "own.yaml")), 3, 0).eval()
    assert network(EXAMPLE).shape == (2, 4 * 16 + 3, 32 * 32)


def test_downloads_are_refused():
    with pytest.raises(UserError, match="download"):
        models.build(SupernetSpec(model="yolov8n.yaml", pretrained=True), 3, 0)


def test_a_checkpoint_is_loaded_and_a_wrong_one_refused(tmp_path):
    from safetensors.torch import save_model

    first = models.build(TINY, 3, 0)
    save_model(first, str(tmp_path / "weights.safetensors"))
    second = models.build(TINY.model_copy(update={"checkpoint": str(tmp_path / "weights.safetensors")}), 3, 1)
    assert torch.equal(first.model[0].conv.weight, second.model[0].conv.weight)
    with pytest.raises(UserError, match=r"has another shape of 'model.22.cv3.*6 in all.*is \[3.*, and \[4"):
        models.build(TINY.model_copy(update={"checkpoint": str(tmp_path / "weights.safetensors")}), 4, 1)
    with pytest.raises(UserError, match="does not exist"):
        models.build(TINY.model_copy(update={"checkpoint": str(tmp_path / "none")}), 3, 1)
    (tmp_path / "damaged.pt").write_bytes(b"no weights")
    for name in ("damaged.pt", "."):
        with pytest.raises(UserError, match=r"cannot be loaded|is a folder: name the file in it") as failed:
            models.build(TINY.model_copy(update={"checkpoint": str(tmp_path / name)}), 3, 1)
        assert "\n" not in str(failed.value)


def ultralytics_own():
    """A network that Ultralytics has built itself, as after training: its halves are of one convolution."""
    return lively(DetectionModel(models.configuration(TINY), ch=3, nc=3, verbose=False))


@pytest.mark.parametrize("kind", ["best.pt", "weights.pth", "bare.safetensors", "parallel.safetensors"])
def test_weights_that_ultralytics_has_trained_are_loaded(kind, tmp_path):
    """Its own checkpoint, its tensors by name, those of its layers alone, and those of a wrapped network."""
    from safetensors.torch import save_file

    own, path = ultralytics_own(), str(tmp_path / kind)
    tensors = own.state_dict()
    if kind == "best.pt":
        torch.save({"epoch": 1, "ema": copy.deepcopy(own).half(), "model": None, "train_args": {}}, path)
        own = own.half().float()
    elif kind == "weights.pth":
        torch.save(tensors, path)
    elif kind == "bare.safetensors":
        save_file(own.model.state_dict(), path)
    else:
        save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, path)
    ours = models.build(TINY.model_copy(update={"checkpoint": path}), 3, 0).eval()
    assert any(isinstance(module, CrossStage) for module in ours.modules())
    with torch.no_grad(), models.library_form(ours):
        torch.testing.assert_close(ours(EXAMPLE)[0], own(EXAMPLE)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["best.pt", "bare.safetensors"])
def test_a_head_of_other_classes_is_drawn_anew_where_the_suite_says_so(kind, tmp_path):
    from safetensors.torch import save_file

    own, path = ultralytics_own(), str(tmp_path / kind)
    if kind == "best.pt":
        torch.save({"epoch": 1, "ema": copy.deepcopy(own), "model": None, "train_args": {}}, path)
    else:
        save_file(own.model.state_dict(), path)
    spec = TINY.model_copy(update={"checkpoint": path})
    with pytest.raises(UserError, match=r"shape of .*cv3.*; fresh_head: true draws the head's classes anew"):
        models.build(spec, 5, 1)
    ours = models.build(spec.model_copy(update={"fresh_head": True}), 5, 1)
    drawn, given = models.build(TINY, 5, 1).state_dict(), own.state_dict()
    halves = {name for name in ours.state_dict() if ".first." in name or ".second." in name}  # one in the file
    for name, tensor in ours.state_dict().items():
        if name not in halves:
            classes = name.startswith("model.22.cv3.")
            assert torch.equal(tensor, drawn[name] if classes else given[name]), name
    assert not torch.equal(ours.model[2].first.conv.weight, models.build(TINY, 5, 1).model[2].first.conv.weight)
    assert ours.model[22].cv3[0][2].weight.size(0) == 5


class Foreign(nn.Module):
    """Not of Ultralytics: makes a file when it is unpickled."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"model": Foreign(str(tmp_path / "run"))}, tmp_path / "best.pt")
    with pytest.raises(UserError, match="classes that are not Ultralytics' own, whose code is not run: save its"):
        models.build(TINY.model_copy(update={"checkpoint": str(tmp_path / "best.pt")}), 3, 0)
    assert not (tmp_path / "run").exists()


def test_a_renamed_tensor_is_named(tmp_path):
    tensors = ultralytics_own().state_dict()
    tensors["model.2.cv7.conv.weight"] = tensors.pop("model.2.cv1.conv.weight")
    torch.save(tensors, tmp_path / "weights.pt")
    with pytest.raises(UserError) as failed:
        models.build(TINY.model_copy(update={"checkpoint": str(tmp_path / "weights.pt")}), 3, 0)
    assert "lacks 'model.2.cv1.conv.weight', has unknown 'model.2.cv7.conv.weight'" in str(failed.value)


def test_fresh_weights_are_those_of_a_network_built_at_that_size():
    """Distributions of the cut network's layers are the library's; bins and biases of the head are exact."""
    network = models.build(TINY, 3, 0)
    small = cut_at_random(network, EXAMPLE)
    for parameter in small.parameters():
        nn.init.constant_(parameter.data, 7.0)
    models.initialise(small, 0)
    bins = [module.conv for module in small.modules() if isinstance(module, DFL)]
    assert len(bins) == 1
    for module in small.modules():
        if module in bins:
            assert torch.equal(module.weight.flatten(), torch.arange(16.0))
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all()
            assert module.eps == 1e-3  # Ultralytics' own
        elif isinstance(module, nn.Conv2d):
            assert module.weight.abs().max() <= module.weight[0].numel() ** -0.5 + 1e-6
    head, reference = small.model[-1], network.model[-1]
    for found, expected in zip([*head.cv2, *head.cv3], [*reference.cv2, *reference.cv3], strict=True):
        assert torch.equal(found[-1].bias, expected[-1].bias)


def test_raw_outputs_are_one_tensor_and_the_library_form_is_restored():
    network = models.build(SupernetSpec(model="yolo26n.yaml"), 3, 0).eval()
    with torch.no_grad():
        assert network(EXAMPLE).shape == (2, 2 * (4 + 3), 84)  # both heads
        with models.library_form(network):
            assert isinstance(network(EXAMPLE), tuple)
        assert isinstance(network(EXAMPLE), torch.Tensor)


def test_a_fused_network_is_smaller_and_the_same():
    network = lively(models.build(TINY, 3, 0)).double()
    folded = models.fused(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(EXAMPLE.double()), network(EXAMPLE.double()), rtol=0, atol=1e-9)
    assert count(folded, EXAMPLE.double()).params < count(network, EXAMPLE.double()).params
