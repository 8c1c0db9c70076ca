"""Data: three splits that do not overlap, from any data YAML, without network."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dms_bench.errors import UserError
from dms_bench_tasks.common.left_out import measures
from dms_bench_tasks.detection.data import Source
from dms_bench_tasks.detection.spec import DetectionTask
from dms_bench_tasks.detection.task import Detection
from tests.unit.detection.detection_helpers import CPU, TINY, task


def files(source, split):
    return {Path(name).name for name in source.plain(split).im_files}


@pytest.fixture
def foreign(tmp_path):
    """A data set as others keep theirs: the scenes, copied, with a YAML that names no test split."""
    own = task(train=20)._source
    folder = tmp_path / "boats"
    for kind in ("images", "labels"):
        for split in ("train", "val"):
            shutil.copytree(own.path.parent / kind / split, folder / kind / split)
    for image in (folder / "images" / "val").iterdir():  # or they would have the names of training images
        image.rename(image.with_stem(f"val{image.stem}"))
    for label in (folder / "labels" / "val").glob("*.txt"):
        label.rename(label.with_stem(f"val{label.stem}"))
    content = {"path": str(folder), "train": "images/train", "val": "images/val", "names": {0: "a", 1: "b", 2: "c"}}
    (folder / "boats.yaml").write_text(yaml.safe_dump(content))
    return folder / "boats.yaml"


def source(**data):
    return Source(DetectionTask(data={"name": "yolo", **data}, image_size=64))


def test_scenes_have_three_splits_of_the_sizes_asked():
    own = task(train=20, val=5, test=7)
    own.prepare()
    assert own.train_samples() == 20
    assert [len(own._source.plain(split)) for split in ("train", "val", "test")] == [20, 5, 7]
    assert len(own._source.names) == 3


def test_a_part_of_train_is_held_out_where_val_is_the_test(foreign):
    held = source(path=str(foreign), val_fraction=0.2)
    held.check()
    train, val, test = (files(held, split) for split in ("train", "val", "test"))
    assert (len(train), len(val)) == (16, 4)
    assert not train & val
    assert test == {path.name for path in (foreign.parent / "images" / "val").iterdir()}
    assert held.names == {0: "a", 1: "b", 2: "c"}
    other = source(path=str(foreign), val_fraction=0.2, seed=1)
    assert files(other, "val") != val
    assert files(source(path=str(foreign), val_fraction=0.2), "val") == val


@pytest.mark.parametrize(
    ("own", "test", "message"),
    [
        ({"val": "images/train"}, "val", "16 of 20 pictures of 'val' are also in 'train'"),
        ({"val": "images/train", "test": "images/val"}, "test", "20 of 20 pictures of 'val' are also in 'train'"),
        ({"test": "images/val"}, "test", " of 'test' are also in 'val'"),
    ],
)
def test_splits_that_share_pictures_are_refused(foreign, own, test, message):
    foreign.write_text(yaml.safe_dump(yaml.safe_load(foreign.read_text()) | own))
    with pytest.raises(UserError, match=message):
        source(path=str(foreign), val_fraction=0.2, test=test).check()


def test_lists_of_images_are_read(foreign):
    names = sorted(path.name for path in (foreign.parent / "images" / "train").iterdir())
    (foreign.parent / "list.txt").write_text("\n".join(f"./images/train/{name}" for name in names[:10]))
    content = yaml.safe_load(foreign.read_text()) | {"train": "list.txt"}
    foreign.write_text(yaml.safe_dump(content))
    held = source(path=str(foreign), val_fraction=0.3)
    assert files(held, "train") | files(held, "val") == set(names[:10])
    assert len(files(held, "val")) == 3


def images_of(foreign, split="train"):
    return sorted((foreign.parent / "images" / split).iterdir())


def test_linked_folders_are_followed(foreign, tmp_path):
    """Half of the images lie elsewhere, behind a link; their labels do, too."""
    for kind in ("images", "labels"):
        store, folder = tmp_path / "store" / kind / "more", foreign.parent / kind / "train"
        store.mkdir(parents=True)
        for path in sorted(folder.iterdir())[:10]:
            path.rename(store / path.name)
        (folder / "linked").symlink_to(store)
    held = source(path=str(foreign), val_fraction=0.2)
    held.check()
    assert len(files(held, "train") | files(held, "val")) == 20
    assert sum(len(label["cls"]) > 0 for label in held.plain("train").labels) == 16


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
        lambda text: text + "\n\n",
        lambda text: text.replace("./", "./../boats and more/"),
    ],
    ids=["windows", "empty lines", "blanks"],
)
def test_lists_are_read_as_ultralytics_reads_them(foreign, change, caplog):
    (foreign.parent.parent / "boats and more").symlink_to(foreign.parent)
    lines = "\n".join(f"./images/train/{path.name}" for path in images_of(foreign))
    (foreign.parent / "list.txt").write_bytes(change(lines).encode())
    foreign.write_text(yaml.safe_dump(yaml.safe_load(foreign.read_text()) | {"train": "list.txt"}))
    held = source(path=str(foreign), val_fraction=0.2)
    held.check()
    assert len(files(held, "train") | files(held, "val")) == 20
    assert not held.left_out()["train"].count
    assert not caplog.messages


def test_what_is_left_out_is_counted_said_once_and_recorded(foreign, caplog):
    images = images_of(foreign)
    for path in images[:2]:
        path.write_bytes(b"no image")
    label = foreign.parent / "labels" / "train" / f"{images[2].stem}.txt"
    label.write_text("7 0.5 0.5 0.2 0.2\n")  # of three classes
    lines = [f"./images/train/{path.name}" for path in images]
    lines[3] += " "
    (foreign.parent / "list.txt").write_text("\n".join(lines))
    (foreign.parent / "again.txt").write_text("\n".join(lines).replace("/train/", "/again/"))
    for kind in ("images", "labels"):
        shutil.copytree(foreign.parent / kind / "train", foreign.parent / kind / "again")
    content = yaml.safe_load(foreign.read_text()) | {"train": "list.txt", "val": "again.txt", "test": "images/val"}
    foreign.write_text(yaml.safe_dump(content))
    own = source(path=str(foreign), test="test", train_images=19)
    own.check()
    source(path=str(foreign), test="test", train_images=19).check()
    lost = own.left_out()
    assert [(lost[split].count, lost[split].of) for split in ("train", "val", "test")] == [(4, 20), (4, 20), (0, 8)]
    assert len(caplog.messages) == 1
    assert "data 'boats': train: 4 of 20 pictures are left out" in caplog.text
    assert f"{images[0]}: cannot identify image file" in caplog.text
    assert measures(lost) == {"left_out_train": 4.0, "left_out_val": 4.0}


def test_a_result_says_what_was_left_out(foreign):
    images_of(foreign)[0].write_bytes(b"no image")
    own = Detection(DetectionTask(data={"name": "yolo", "path": str(foreign), "val_fraction": 0.2}, image_size=64), 0)
    network = own.build(TINY)
    measured = own.evaluate(network, "test", CPU)
    assert measured.get("left_out_train", 0) + measured.get("left_out_val", 0) == 1
    assert not any(name.startswith("left_out") for name in own.evaluate(network, "val", CPU))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"channels": 1}, "channels: 1: networks are searched on images of 3 channels"),
        ({"channels": 6}, "channels: 6: networks are searched on images of 3 channels"),
        ({"names": {6: "a", 35: "b", 36: "c"}}, "class indices"),
        ({"names": None, "nc": "three"}, "'nc: three' must be an integer"),
        ({"names": "fish"}, "names"),
        ({"train": "nowhere"}, "nowhere"),
    ],
)
def test_odd_yamls_get_one_line(foreign, content, message):
    foreign.write_text(yaml.safe_dump(yaml.safe_load(foreign.read_text()) | content))
    with pytest.raises(UserError, match=message) as failed:
        source(path=str(foreign)).check()
    assert "\n" not in str(failed.value)


def test_names_that_are_none_get_one_line(foreign):
    for content in ({"names": {"a": 0}}, {"names": None, "nc": "three"}, {"names": None}):
        foreign.write_text(yaml.safe_dump(yaml.safe_load(foreign.read_text()) | content))
        with pytest.raises(UserError, match=r"'names'.*'nc'"):
            _ = source(path=str(foreign)).names


def test_one_class_is_enough(foreign):
    for label in (foreign.parent / "labels").rglob("*.txt"):
        label.write_text("0 0.5 0.5 0.2 0.2\n")
    for names in (["fish"], {0: "fish"}):
        foreign.write_text(yaml.safe_dump(yaml.safe_load(foreign.read_text()) | {"names": names, "nc": 1}))
        held = source(path=str(foreign), val_fraction=0.2)
        held.check()
        assert held.names == {0: "fish"}


def test_images_without_an_object_are_refused(foreign):
    for label in (foreign.parent / "labels" / "train").iterdir():
        label.unlink()
    with pytest.raises(UserError, match=r"split 'train' .* none of its 18 images has an object: .* no label file"):
        source(path=str(foreign), val_fraction=0.1).check()


def test_numbers_of_32_bits_are_refused_and_those_of_16_scaled(foreign):
    first = images_of(foreign)[0]
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    first.unlink()
    Image.fromarray(ramp).save(first)  # a PNG of 16 bits: its high bytes are taken
    held = source(path=str(foreign), val_fraction=0.05)
    held.check()
    data = held.plain("train" if first.name in files(held, "train") else "val")
    image = data.load_image(data.im_files.index(str(first)))[0]
    assert np.array_equal(image[..., 0], ramp >> 8)
    for kind, number in (("fraction", np.float32), ("32 bits", np.int32)):
        Image.fromarray(ramp.astype(number)).save(first.with_name("odd.tif"))
        (foreign.parent / "labels" / "train" / "odd.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        with pytest.raises(UserError, match=f"odd.tif' holds .*{kind}"):
            source(path=str(foreign), val_fraction=0.05).check()


def test_its_own_test_split_is_used_where_asked(foreign):
    with pytest.raises(UserError, match="no 'test' split"):
        source(path=str(foreign), test="test").check()
    content = yaml.safe_load(foreign.read_text()) | {"test": "images/val", "val": "images/train"}
    foreign.write_text(yaml.safe_dump(content))
    own = source(path=str(foreign), test="test")
    assert len(files(own, "train")) == 20
    assert files(own, "test") == {path.name for path in (foreign.parent / "images" / "val").iterdir()}


def test_another_root_and_the_number_of_images(foreign, tmp_path):
    content = yaml.safe_load(foreign.read_text()) | {"path": "/nowhere"}
    foreign.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="nowhere"):
        source(path=str(foreign)).check()
    moved = source(path=str(foreign), root=str(foreign.parent), val_fraction=0.2, train_images=20)
    moved.check()
    assert moved.train_samples() == 16
    with pytest.raises(UserError, match="not as train_images says"):
        source(path=str(foreign), root=str(foreign.parent), train_images=30).check()


def test_a_suite_is_planned_where_its_data_are_not():
    """Names come from the YAML, which is there; the number of images from the suite."""
    away = source(path="coco.yaml", train_images=118287)
    assert len(away.names) == 80
    assert away.names[79] == "toothbrush"
    assert away.train_samples() == 118287 - 2366
    with pytest.raises(UserError, match="nothing"):
        _ = source(path="nothing.yaml").names


@pytest.mark.parametrize("path", ["coco.yaml", "/nowhere/at/all.yaml", "nothing.yaml"])
def test_missing_data_get_one_line_and_no_download(path):
    """Conftest refuses every call to a server."""
    with pytest.raises(UserError) as failed:
        source(path=path).check()
    assert Path(path).stem in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_probe_is_always_the_same(tmp_path):
    own = task(train=20)
    first, again = (list(own._source.probe(10, 4, CPU)) for _ in range(2))
    assert [len(batch["img"]) for batch in first] == [4, 4, 2]
    assert all(torch.equal(a["img"], b["img"]) for a, b in zip(first, again, strict=True))
    assert 0.3 < float(first[0]["img"].max()) <= 1
    assert {"cls", "bboxes", "batch_idx"} <= set(first[0])


def test_losses_have_a_graph_and_recalibration_sets_the_statistics():
    from tests.unit.detection.detection_helpers import TINY

    own = task(train=20)
    model = own.build(TINY).eval()
    values = list(own.losses(model, 2, CPU))
    assert len(values) == 2
    values[0].backward()
    assert model.model[0].conv.weight.grad.abs().sum() > 0
    norm = model.model[0].bn
    own.recalibrate(model, CPU)
    images = torch.cat([batch["img"] for batch in own._source.probe(20, 20, CPU)])
    with torch.no_grad():
        expected = model.model[0].conv(images).mean((0, 2, 3))
    # A last batch of four counts as much as one of sixteen.
    torch.testing.assert_close(norm.running_mean, expected, rtol=0.2, atol=0.02)
    assert norm.momentum == 0.03
    assert not model.training
