"""Cut networks as ONNX files: the same outputs at any batch size, or no file."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from dms_bench.errors import UserError
from dms_bench.inference import onnx, runtimes
from dms_bench.scaling import cut, find_space

CASES = {
    "resnet18": (64, {"channels": (16, 16, 32, 32)}),
    "test_efficientnet": (64, {}),
    "test_vit": (160, {}),
    "test_nfnet": (64, {}),
}
SLOW = {"efficientnet_b0": (64, {}), "deit_tiny_patch16_224": (224, {}), "swin_tiny_patch4_window7_224": (224, {})}


def cut_network(name, size, args, attention="heads"):
    torch.manual_seed(0)
    model, example = timm.create_model(name, num_classes=5, **args), torch.randn(1, 3, size, size)
    space = find_space(model, example, attention=attention)
    mask = (torch.rand(space.units.total, generator=torch.Generator().manual_seed(0)) < 0.6).float()
    for start in space.units.starts:
        mask[start] = 1
    return cut(model, space, space.architecture(mask)), example


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        *((name, "heads") for name in CASES),
        ("test_vit", "both"),
        *(pytest.param(name, "heads", marks=pytest.mark.slow) for name in SLOW),
    ],
)
def test_onnx_runtime_computes_the_cut_network_at_any_batch_size(name, attention, tmp_path, capfd):
    import onnxruntime

    network, example = cut_network(name, *{**CASES, **SLOW}[name], attention)
    path = tmp_path / "model.onnx"
    assert onnx.export_onnx(network, example, path) <= onnx.TOLERANCE
    assert capfd.readouterr() == ("", "")
    inputs = torch.randn(3, *example.shape[1:])
    session = onnxruntime.InferenceSession(str(path))
    found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0])
    with torch.no_grad():
        torch.testing.assert_close(found, network.eval()(inputs), rtol=1e-3, atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_a_file_that_computes_something_else_is_not_handed_out(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "difference", lambda model, predict, example: 0.5)
    with pytest.raises(UserError, match=r"differ from the network's own by 5\.0e-01"):
        onnx.export_onnx(nn.Linear(4, 2), torch.randn(1, 4), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_says_so_in_one_line(tmp_path):
    class Depends(nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(UserError, match="cannot be written as ONNX") as caught:
        onnx.export_onnx(Depends(), torch.randn(1, 4), tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(UserError, match=r"needs onnxruntime: install dms-bench\[onnx\]"):
        onnx.export_onnx(nn.Linear(4, 2), torch.randn(1, 4), tmp_path / "model.onnx")
