"""A checkpoint that tells other classes apart: everything but its classifier is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from dms_bench.config import load_suite, resolve
from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.trial.preflight import Preflight
from dms_bench.trial.spaces import untrained
from dms_bench_tasks.classification import model
from dms_bench_tasks.common.weights import without

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
def test_all_but_the_classifier_is_taken(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(5)
    given = timm.create_model("test_efficientnet", num_classes=7).state_dict()
    path = tmp_path / "given.safetensors"
    save_file({f"{prefix}{name}": tensor for name, tensor in given.items()}, path)
    spec = SupernetSpec(model="test_efficientnet", checkpoint=str(path), fresh_head=True)
    own = model.build(spec, 4, 3, 32, seed=1).state_dict()
    drawn = model.build(untrained(spec), 4, 3, 32, seed=1).state_dict()
    for name, tensor in own.items():
        expected = drawn if name.startswith("classifier.") else given
        assert torch.equal(tensor, expected[name]), name
    assert own["classifier.weight"].size(0) == 4
    hint = r"another shape of 'classifier\.(weight|bias)'.*; fresh_head: true draws the classifier anew"
    with pytest.raises(UserError, match=hint):
        model.build(spec.model_copy(update={"fresh_head": False}), 4, 3, 32, seed=1)


def test_the_rest_must_fit_all_the_same(tmp_path: Path) -> None:
    given = timm.create_model("test_efficientnet", num_classes=7).state_dict()
    del given["bn1.weight"]
    save_file(given, tmp_path / "given.safetensors")
    spec = SupernetSpec(model="test_efficientnet", checkpoint=str(tmp_path / "given.safetensors"), fresh_head=True)
    with pytest.raises(UserError, match=r"it lacks 'bn1\.weight'$"):
        model.build(spec, 4, 3, 32, seed=1)


def test_tensors_are_left_out_by_name_whatever_stands_before() -> None:
    names = ["head.weight", "module.head.weight", "model.network.head.weight", "other.head.weight", "body.weight"]
    assert list(without(dict.fromkeys(names), ["head.weight"])) == ["other.head.weight", "body.weight"]
    assert list(without({"model.fc": 0, "fc": 1}, ["model.fc"])) == ["fc"]


def test_a_network_whose_classifier_is_not_known(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "given.safetensors")
    with pytest.raises(UserError, match=r"fresh_head: which layers of this network classify is not known"):
        model.load_weights(torch.nn.Linear(2, 2), str(tmp_path / "given.safetensors"), fresh_head=True)


def test_a_fresh_head_without_a_checkpoint_or_training_is_refused() -> None:
    with pytest.raises(ValidationError, match="fresh_head is for a checkpoint"):
        SupernetSpec(model="resnet18", fresh_head=True)
    trial = resolve(load_suite(ROOT / "benchmarks" / "transfer.yaml"))[0]
    with pytest.raises(ValidationError, match="give a 'pretrain' recipe, which trains it"):
        type(trial).model_validate(trial.model_dump() | {"pretrain": None})


def test_what_has_to_be_fetched_first_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    preflight = Preflight()
    preflight.check_networks(resolve(load_suite(ROOT / "benchmarks" / "transfer.yaml"))[0])
    with pytest.raises(UserError, match=r"does not exist; `dms-bench data get efficientnet_lite0` brings it$") as error:
        preflight.refusals.check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("given", "wanted"), [(3, 1), (1, 3)])
def test_the_first_convolution_is_adapted_to_grey_or_colour_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, given: int, wanted: int
) -> None:
    """A grey image in three equal channels is answered as before, whichever of both the network had learnt."""
    torch.manual_seed(5)
    trained = timm.create_model("test_efficientnet", num_classes=4, in_chans=given).eval()
    save_file(trained.state_dict(), tmp_path / "given.safetensors")
    spec = SupernetSpec(model="test_efficientnet", checkpoint=str(tmp_path / "given.safetensors"))
    own = model.build(spec, 4, wanted, 32, seed=1).eval()
    grey = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        expected = trained(grey.expand(-1, given, -1, -1))
        torch.testing.assert_close(own(grey.expand(-1, wanted, -1, -1)), expected, rtol=1e-4, atol=1e-5)
    shapes = [list(network.conv_stem.weight.shape) for network in (own, trained)]
    assert caplog.messages[-1].endswith(f"'conv_stem.weight' is adapted to {shapes[0]}, from {shapes[1]}")


def test_other_shapes_are_refused_with_the_tensor_and_both(tmp_path: Path) -> None:
    given = timm.create_model("test_efficientnet", num_classes=4).state_dict()
    given["conv_stem.weight"] = given["conv_stem.weight"][:, :2].contiguous()
    save_file(given, tmp_path / "given.safetensors")
    spec = SupernetSpec(model="test_efficientnet", checkpoint=str(tmp_path / "given.safetensors"))
    wrong = r"another shape of 'conv_stem.weight', which is \[24, 2, 3, 3\], and \[24, 3, 3, 3\] in the network$"
    with pytest.raises(UserError, match=wrong):
        model.build(spec, 4, 3, 32, seed=1)
