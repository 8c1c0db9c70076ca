"""Fashion-MNIST: what comes with the package is the original's, and both give the same splits."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from dms_bench.errors import UserError
from dms_bench_tasks.classification import fashion
from dms_bench_tasks.classification.data_spec import FashionData
from dms_bench_tasks.classification.embedded import EmbeddedSource
from dms_bench_tasks.classification.spec import ClassificationTask

#: Of the pictures and labels of train, val and test, as `fashion.load` gives them from the original's files (`root`).
DIGEST = "9d778bf926c307fc463136579bc9efcbd76419414dbb3fe62da9a3d1eb4afa35"


def write_idx(path: Path, array: NDArray[np.uint8], *, packed: bool) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.tobytes()
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, 1))
    else:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Files in the original's form, of pictures whose first four pixels say which they are."""
    folder, draw = tmp_path_factory.mktemp("fashion"), np.random.default_rng(1)
    for name, number in (("train", 60_000), ("t10k", 10_000)):
        pictures = np.zeros((number, 28, 28), np.uint8)
        pictures.reshape(number, -1)[:, :4] = np.arange(number, dtype=">u4").view(np.uint8).reshape(-1, 4)
        labels = draw.permutation(np.arange(number) % 10).astype(np.uint8)
        write_idx(folder / f"{name}-images-idx3-ubyte", pictures, packed=True)
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels, packed=name == "train")
    return str(folder)


def numbers(pictures: NDArray[np.uint8]) -> list[int]:
    """Which pictures of the stand-in these are."""
    flat = pictures.reshape(len(pictures), -1)[:, :4]
    return [int(number) for number in np.ascontiguousarray(flat).view(">u4").flatten()]


def test_splits_are_drawn_from_the_right_files_and_share_no_picture(stand_in: str) -> None:
    data = FashionData(root=stand_in, train=12_000, val=3_000, test=500)
    splits = {split: fashion.load(data, split, 28, 1) for split in ("train", "val", "test")}
    assert {split: pictures.shape for split, (pictures, _) in splits.items()} == {
        "train": (12_000, 1, 28, 28),
        "val": (3_000, 1, 28, 28),
        "test": (500, 1, 28, 28),
    }
    train, val = (set(numbers(splits[split][0])) for split in ("train", "val"))
    assert len(train) == 12_000
    assert len(val) == 3_000
    assert not train & val
    for _, labels in splits.values():
        assert np.ptp(np.bincount(labels, minlength=10)) == 0
        assert labels.dtype == np.int64
    fewer = fashion.load(FashionData(root=stand_in, train=100, val=50, test=10), "train", 28, 1)
    assert numbers(fewer[0]) == numbers(splits["train"][0])[:100]
    assert np.bincount(fewer[1], minlength=10).tolist() == [10] * 10


def test_labels_go_with_their_pictures(stand_in: str) -> None:
    with gzip.open(Path(stand_in, "train-labels-idx1-ubyte.gz")) as file:
        labels = np.frombuffer(file.read()[8:], np.uint8)
    pictures, found = fashion.load(FashionData(root=stand_in), "train", 28, 1)
    assert found.tolist() == labels[numbers(pictures)].tolist()


def test_the_part_is_what_the_original_gives(stand_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fashion.pack(stand_in, tmp_path / "packed")
    monkeypatch.setattr(fashion, "PACKED", tmp_path / "packed")
    fashion._packed.cache_clear()
    try:
        for split in ("train", "val", "test"):
            for own, whole in zip(
                fashion.load(FashionData(), split, 28, 1),
                fashion.load(FashionData(root=stand_in), split, 28, 1),
                strict=True,
            ):
                assert np.array_equal(own, whole)
    finally:
        fashion._packed.cache_clear()


def test_the_part_that_comes_with_the_package_is_the_originals() -> None:
    digest = hashlib.sha256()
    for split in ("train", "val", "test"):
        for array in fashion.load(FashionData(), split, 28, 1):
            digest.update(array.astype(np.uint8).tobytes())
    assert digest.hexdigest() == DIGEST


def test_the_part_can_be_told_apart() -> None:
    """Classes by the nearest mean: 0.68 of the original's test pictures (its authors' table: 0.6768)."""
    train, test = (fashion.load(FashionData(), split, 28, 1) for split in ("train", "test"))
    means = np.stack([train[0][train[1] == kind].astype(float).mean(0).ravel() for kind in range(10)])
    flat = test[0].reshape(len(test[0]), -1).astype(float)
    distances = (flat**2).sum(1)[:, None] - 2 * flat @ means.T + (means**2).sum(1)
    assert float((distances.argmin(1) == test[1]).mean()) == pytest.approx(0.677, abs=0.01)


def test_pictures_are_scaled_and_repeated() -> None:
    source = EmbeddedSource(FashionData(train=40, val=20, test=30), 32, 3)
    source.check()
    images, labels = source.tensors("train")
    assert images.shape == (40, 3, 32, 32)
    assert bool((images[:, 0] == images[:, 2]).all())
    assert labels.bincount().tolist() == [4] * 10
    assert source.train_samples() == 40
    small = fashion.load(FashionData(train=40), "train", 28, 1)[0]
    assert float(images.float().mean()) == pytest.approx(float(small.mean()), rel=0.02)


def test_a_suite_names_it_alone() -> None:
    task = ClassificationTask(data="fashion_mnist")
    assert task.label() == "fashion_mnist 32px"
    assert (task.data.classes, task.channels) == (10, 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train": 20_000}, "10000 and 2000 pictures come with the package; give 'root'"),
        ({"val": 3_000}, "10000 and 2000 pictures come with the package; give 'root'"),
        ({"root": "x", "train": 59_000}, "train 59000 and val 2000 share the original's 60000 pictures"),
        ({"test": 10_001}, "less than or equal to 10000"),
    ],
)
def test_more_than_there_are_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FashionData.model_validate(fields)


def test_an_original_that_is_not_there_or_damaged_is_said(stand_in: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no train-images-idx3-ubyte.gz: it is the folder of Fashion-MNIST's four"):
        fashion.load(FashionData(root=str(tmp_path)), "train", 28, 1)
    for path in Path(stand_in).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:100])
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte.gz' is damaged"):
        fashion.load(FashionData(root=str(tmp_path)), "val", 28, 1)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(60_000, np.uint8), packed=True)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(100, np.uint8), packed=False)
    with pytest.raises(UserError, match="its t10k files are not those of Fashion-MNIST"):
        fashion.load(FashionData(root=str(tmp_path)), "test", 28, 1)
