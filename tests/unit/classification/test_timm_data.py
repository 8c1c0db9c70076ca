from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench_tasks.classification.spec import ClassificationTask
from dms_bench_tasks.classification.task import Classification
from dms_bench_tasks.classification.timm_data import TimmSource
from dms_bench_tasks.common.sharding import Shard
from tests.unit.classification.classification_helpers import CPU, MemoryLoop, recipe, same

NET = SupernetSpec(model="test_efficientnet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 5)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(256, size=(40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{number}.png")
    return root


def task(folder: Path, **data: Any) -> Classification:
    fields = {"name": "timm", "root": str(folder), "classes": 2, "workers": 0, "val_fraction": 0.2} | data
    return Classification(ClassificationTask.model_validate({"data": fields, "image_size": 32}), 0)


def source(folder: Path, **data: Any) -> TimmSource:
    origin = task(folder, **data)._data
    assert isinstance(origin, TimmSource)
    return origin


def names(origin: TimmSource, split: Any) -> set[str]:
    view = origin.open(split)
    return {view.dataset.filename(int(index)) for index in view.indices}


def test_splits_are_separate_and_complete(folder: Path) -> None:
    origin = source(folder)
    origin.check()
    train, val = names(origin, "train"), names(origin, "val")
    assert (len(train), len(val), len(names(origin, "test"))) == (32, 8, 10)
    assert not train & val
    assert val == names(source(folder), "val")
    assert val != names(source(folder, seed=1), "val")
    assert origin.train_samples() == 32


def test_an_efficientnet_recipe_trains_and_resumes(folder: Path) -> None:
    options: dict[str, Any] = {
        "epochs": 2, "batch_size": 16, "opt": "rmsproptf", "lr": 0.01, "opt_kwargs": {"eps": 0.001}, "sched": "step",
        "decay_epochs": 2.4, "decay_rate": 0.97, "warmup_epochs": 1, "aa": "rand-m9-mstd0.5", "reprob": 0.2,
        "drop": 0.2, "drop_path": 0.2, "model_ema_decay": 0.9, "smoothing": 0.1,
    }  # fmt: skip
    whole = task(folder)
    expected = whole.fit(whole.build(NET), recipe(**options), MemoryLoop())
    killed = MemoryLoop(stop=1)
    with pytest.raises(KeyboardInterrupt):
        whole.fit(whole.build(NET), recipe(**options), killed)
    resumed = MemoryLoop(killed.state)
    assert same(whole.fit(whole.build(NET), recipe(**options), resumed).state_dict(), expected.state_dict())
    assert whole.evaluate(expected, "test", CPU)["n"] == 10
    whole.recalibrate(expected, CPU)


def test_worker_processes_repeat_themselves(folder: Path) -> None:
    origin = source(folder, workers=1)
    model = task(folder).build(NET)

    def epoch(number: int) -> torch.Tensor:
        torch.manual_seed(number)
        return torch.cat(
            [images for images, _ in origin.train(model, recipe(batch_size=16), Shard(), CPU, 0).epoch(number)]
        )

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))


def test_images_are_normalised_as_the_network_expects(folder: Path) -> None:
    model = task(folder).build(NET)
    plain = next(source(folder, mean=(0, 0, 0), std=(1, 1, 1)).evaluation(model, "test", CPU))[0]
    images = next(source(folder).evaluation(model, "test", CPU))[0]
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    assert torch.allclose(images, (plain - mean) / std, atol=1e-4)


def test_grey_images(folder: Path) -> None:
    fields = {"name": "timm", "root": str(folder), "classes": 2, "workers": 0}
    grey = Classification(ClassificationTask.model_validate({"data": fields, "image_size": 32, "channels": 1}), 0)
    grey.prepare()
    assert grey.evaluate(grey.build(NET), "test", CPU)["n"] == 10


def test_shards_cover_a_split_once(folder: Path) -> None:
    origin, model = source(folder), task(folder).build(NET)
    counts = [sum(len(y) for _, y in origin.evaluation(model, "test", CPU, Shard(rank, 3))) for rank in range(3)]
    assert counts == [4, 3, 3]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"root": "/nowhere"}, "data folder '/nowhere' does not exist"),
        ({"classes": 3}, "train has 2 classes, not classes: 3"),
        ({"splits": {"test": "vall"}}, "no split 'vall': did you mean 'val'"),
        ({"splits": {"train": "training_set"}}, "no split 'training_set': did you mean"),
        ({"dataset": "torhc/cifar10"}, "unknown data set 'torhc/cifar10': did you mean 'torch'"),
        ({"dataset": "torch/cifar11"}, "cifar11"),
        ({"dataset": "torch/cifar10"}, "Dataset not found"),
        ({"dataset": "wds/some"}, "needs the package 'webdataset'"),
    ],
)
def test_what_is_missing_is_said_in_one_line(folder: Path, data: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        source(folder, **data).check()
    assert "\n" not in str(caught.value)


def test_options_of_the_embedded_sets_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="shift"):
        source(folder).check_recipe(recipe(shift=2))


def test_a_given_number_of_images_needs_no_data_and_is_checked_where_they_are(folder: Path) -> None:
    elsewhere = source(folder, root="nowhere", train_images=1000)
    assert elsewhere.train_samples() == 800  # a fifth is held out
    assert source(folder, root="nowhere", train_images=1000, splits={"val": "v"}).train_samples() == 1000
    right = source(folder, train_images=40)
    right.check()
    assert right.train_samples() == len(right.open("train"))
    with pytest.raises(UserError, match=r"train has 40 images, not train_images: 41"):
        source(folder, train_images=41).check()


@pytest.fixture
def odd(folder: Path, tmp_path: Path) -> Path:
    """The same images, to be spoilt."""
    shutil.copytree(folder, tmp_path / "odd")
    return tmp_path / "odd"


@pytest.mark.parametrize(("channels", "workers"), [(1, 0), (3, 0), (1, 1)])
def test_images_of_16_bits_keep_their_high_byte(odd: Path, channels: int, workers: int) -> None:
    """Pillow makes 255 of all that is above it."""
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    for path in odd.rglob("*.png"):
        Image.fromarray(ramp).save(path)
    plain = {"mean": (0.0,) * channels, "std": (1.0,) * channels, "crop_pct": 1.0, "workers": workers}
    data = {"name": "timm", "root": str(odd), "classes": 2, "val_fraction": 0.2, **plain}
    spec = ClassificationTask.model_validate({"data": data, "image_size": 32, "channels": channels})
    own = Classification(spec, 0)
    own.prepare()
    images, _ = next(iter(own._data.evaluation(own.build(NET), "test", CPU)))
    expected = torch.from_numpy((ramp >> 8).astype(np.float32)) / 255
    torch.testing.assert_close(images[0], expected.expand(channels, 32, 32), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("number", "what"), [(np.float32, "fraction"), (np.int32, "32 bits")])
def test_images_of_other_numbers_are_refused_by_name(odd: Path, number: type, what: str) -> None:
    path = odd / "train" / "dog" / "7.png"
    Image.fromarray(np.full((40, 50), 0.5).astype(number)).save(path, format="tiff")
    with pytest.raises(UserError, match=rf"(train|val): .*7.png' holds .*{what}") as refused:
        source(odd).check()
    assert "\n" not in str(refused.value)


def test_what_is_left_out_is_counted_said_once_and_recorded(odd: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Damaged images, and those whose endings timm does not read."""
    images = sorted((odd / "train").rglob("*.png"))
    images[0].write_bytes(b"no image")
    images[1].write_bytes(images[1].read_bytes()[:300])
    for number, path in enumerate(images[2:5]):
        Image.open(path).save(odd / "train" / "cat" / f"new{number}.bmp")
    for _ in range(2):
        source(odd).check()
    assert len(caplog.messages) == 1
    assert "of 35 pictures are left out" in caplog.text  # 32 are for training
    assert str(images[0]) in caplog.text or str(images[1]) in caplog.text or ".bmp" in caplog.text
    own = task(odd)
    model = own.build(NET)
    measured = own.evaluate(model, "test", CPU)
    assert measured["left_out_train"] + measured.get("left_out_val", 0) == 5
    assert not any(name.startswith("left_out") for name in own.evaluate(model, "val", CPU))
    seen = [own._data.evaluation(model, split, CPU) for split in ("train", "val")]
    assert sum(len(labels) for batches in seen for _, labels in batches) == 40


def test_labelled_pictures_are_of_their_split_and_normalised_as_the_card_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    drawn: dict[str, dict[str, np.ndarray]] = {"train": {}, "val": {}}
    for split, count in (("train", 10), ("val", 4)):
        for label in ("cat", "dog"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(256, size=(32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / label / f"{number}.png")
                drawn[split][f"{label}/{number}.png"] = pixels
    own = task(tmp_path, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], crop_pct=1.0)
    network = own.build(NET)
    takes, gives = own.inputs_and_outputs(network)
    assert takes.startswith(
        "float32 [batch, 3, 32, 32]: pixels from 0 to 1, less (0.1, 0.2, 0.3), divided by (0.4, 0.5, 0.6), by channel;"
    )
    assert gives.startswith("float32 [batch, 2]:")

    def written(pixels: np.ndarray) -> bytes:
        scaled = (pixels / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.4, 0.5, 0.6])
        return np.round(scaled.transpose(2, 0, 1) * 1000).astype(np.int32).tobytes()

    origin = source(tmp_path)
    for split, folder_of, most in (("train", "train", 7), ("val", "train", 100), ("test", "val", 5)):
        found = list(own.labelled(network, split, most))  # type: ignore[arg-type]
        images, labels = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        expected = {
            written(drawn[folder_of][name]): int(name.startswith("dog")) for name in map(str, names(origin, split))
        }
        assert len(labels) == min(most, len(expected))
        keys = [np.round(image * 1000).astype(np.int32).tobytes() for image in images.astype(np.float64)]
        assert len(set(keys)) == len(keys)
        assert [expected[key] for key in keys] == labels.tolist()
        again = torch.cat([part for part, _ in own.labelled(network, split, most)])  # type: ignore[arg-type]
        assert np.array_equal(again.numpy(), images)


def test_a_folder_of_classes_without_splits_is_split(folder: Path) -> None:
    fields: dict[str, Any] = {"splits": {"train": ".", "val": None, "test": None}, "test_fraction": 0.25}
    origin = source(folder / "train", **fields)
    origin.check()
    parts = [names(origin, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [22, 8, 10]
    assert len(set.union(*parts)) == 40
    assert origin.train_samples() == 22
    assert source(folder / "train", **fields, train_images=40).train_samples() == 22
    assert parts[2] != names(source(folder / "train", **fields, seed=1), "test")
    assert all(lost.count == 0 for lost in origin.left_out().values())


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"splits": {"test": None}}, "give 'test_fraction' where splits.test is null, and only there"),
        ({"test_fraction": 0.2}, "give 'test_fraction' where splits.test is null, and only there"),
        ({"splits": {"val": "val", "test": None}, "test_fraction": 0.2}, "names a split, but splits.test is null"),
        ({"splits": {"test": None}, "test_fraction": 0.8}, "val_fraction and test_fraction leave nothing to train on"),
        ({"splits": {"train": "x", "test": "x"}}, "must be different splits"),
    ],
)
def test_splits_that_cannot_be_held_out_are_refused(folder: Path, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        task(folder, **fields)


def test_home_may_be_a_tilde(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert names(source(folder, root=f"~/{folder.name}"), "test") == names(source(folder), "test")
