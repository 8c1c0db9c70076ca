"""Data: three splits that do not overlap, from any data YAML, without network."""

from pathlib import Path

import pytest
import torch
import yaml

from dms_bench.errors import UserError
from dms_bench_tasks.detection.data import Source
from dms_bench_tasks.detection.spec import DetectionTask
from tests.unit.detection.detection_helpers import CPU, task


def files(source, split):
    return {Path(name).name for name in source.plain(split).im_files}


@pytest.fixture
def foreign(tmp_path):
    """A data set as others keep theirs: the scenes, copied, with a YAML that names no test split."""
    import shutil

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


def test_lists_of_images_are_read(foreign):
    names = sorted(path.name for path in (foreign.parent / "images" / "train").iterdir())
    (foreign.parent / "list.txt").write_text("\n".join(f"./images/train/{name}" for name in names[:10]))
    content = yaml.safe_load(foreign.read_text()) | {"train": "list.txt"}
    foreign.write_text(yaml.safe_dump(content))
    held = source(path=str(foreign), val_fraction=0.3)
    assert files(held, "train") | files(held, "val") == set(names[:10])
    assert len(files(held, "val")) == 3


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
