from __future__ import annotations

import copy
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import DropPath
from torch import nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench_tasks.classification import model as models
from tests.unit.classification.classification_helpers import TINY, same


def build(name: str = "resnet18", size: int = 32, seed: int = 0, **fields: object) -> nn.Module:
    args = {"args": TINY.args} if name == "resnet18" else {}
    return models.build(SupernetSpec.model_validate({"model": name} | args | fields), 4, 1, size, seed)


def test_the_seed_decides_the_weights_and_global_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = build()
    assert torch.equal(torch.rand(1), expected)
    assert same(one.state_dict(), build().state_dict())
    assert not same(one.state_dict(), build(seed=1).state_dict())


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "resnet18"])
def test_networks_take_the_tasks_images(name: str) -> None:
    model = build(name, size=64)
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "resnet81"}, "no model 'resnet81'; did you mean .*resnet18"),
        ({"args": {"chanels": 3}}, "chanels"),
        ({"args": {"num_classes": 3}}, "num_classes is decided by data"),
        ({"model": "test_vit", "args": {"patch_size": 64}}, "test_vit"),
        ({"model": "test_vit", "args": {"patch_size": 5}}, "test_vit"),
        ({"checkpoint": "/nowhere.safetensors"}, "does not exist"),
    ],
)
def test_unusable_networks_are_refused_in_one_line(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(**({"name": fields.pop("model")} if "model" in fields else {}), **fields)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_checkpoints_are_loaded(tmp_path: Path, kind: str) -> None:
    trained, path = build(seed=3), tmp_path / f"weights.{kind}"
    save_file(trained.state_dict(), path) if kind == "safetensors" else torch.save(trained.state_dict(), path)
    assert same(build(checkpoint=str(path)).state_dict(), trained.state_dict())


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    (tmp_path / "damaged.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"damaged.pth' cannot be loaded"):
        build(checkpoint=str(tmp_path / "damaged.pth"))
    torch.save({"fc.weight": torch.zeros(4, 9)}, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"lacks .* in all\), has another shape of 'fc.weight'"):
        build(checkpoint=str(tmp_path / "part.pth"))
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"run' is a folder: name a file"):
        build(checkpoint=str(tmp_path / "run"))


@pytest.mark.parametrize("wrapped", ["module.", "model.", "_orig_mod.module."])
def test_names_of_wrapped_networks_are_known(tmp_path: Path, wrapped: str) -> None:
    trained, path = build(seed=3), str(tmp_path / "weights.safetensors")
    save_file({wrapped + name: tensor for name, tensor in trained.state_dict().items()}, path)
    assert same(build(checkpoint=path).state_dict(), trained.state_dict())


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_efficientnet", "test_convnext"])
def test_stochastic_depth_equals_timms_own(name: str) -> None:
    args = TINY.args if name == "resnet18" else {}
    plain = timm.create_model(name, num_classes=4, **args)
    built = timm.create_model(name, num_classes=4, drop_path_rate=0.3, **args)
    expected = [module.drop_prob for module in built.modules() if isinstance(module, DropPath)]
    before = [str(module) for module in plain.modules()]
    with models.regularised(plain, None, 0.3):
        rates = [module.drop_prob for module in plain.modules() if isinstance(module, DropPath)]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.3)
    assert rates == sorted(rates)
    if name in ("test_vit", "resnet18"):  # others space their rates a little differently
        assert [rate for rate in rates if rate] == pytest.approx([rate for rate in expected if rate])
    assert [str(module) for module in plain.modules()] == before


def test_dropout_acts_before_the_classifier_while_training() -> None:
    model = build()
    seen: list[torch.Tensor] = []
    images = torch.randn(64, 1, 32, 32)
    with models.regularised(model, 0.5, None):
        handle = model.fc.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
        model.train()(images)
        model.eval()(images)
        handle.remove()
    assert (seen[0] == 0).float().mean() > (seen[1] == 0).float().mean() + 0.2
    copy.deepcopy(model)
    assert not model.fc._forward_pre_hooks


def test_no_rate_leaves_the_network_as_it_was_built() -> None:
    model = timm.create_model("test_vit", drop_path_rate=0.2)
    with models.regularised(model, None, None):
        assert max(module.drop_prob for module in model.modules() if isinstance(module, DropPath)) > 0.1
