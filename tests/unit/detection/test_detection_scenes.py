"""Scenes: the same everywhere, correctly labelled, as hard as asked."""

import numpy as np
import pytest
from PIL import Image

from dms_bench_tasks.detection import scenes
from dms_bench_tasks.detection.spec import GlyphScenes

SMALL = GlyphScenes(train=6, val=3, test=4, classes=5)


def test_an_image_depends_on_its_number_and_on_nothing_else():
    first, again = scenes.draw(SMALL, "train", 3, 96), scenes.draw(GlyphScenes(train=99, classes=5), "train", 3, 96)
    assert np.array_equal(first.image, again.image)
    assert (first.classes, first.boxes) == (again.classes, again.boxes)
    others = [
        scenes.draw(SMALL, "train", 4, 96),
        scenes.draw(SMALL, "val", 3, 96),
        scenes.draw(SMALL.model_copy(update={"seed": 1}), "train", 3, 96),
    ]
    assert all(not np.array_equal(first.image, other.image) for other in others)


def test_the_pixels_are_pinned():
    """A change of the images needs another `VERSION`: caches hold the old ones."""
    scene = scenes.draw(GlyphScenes(), "test", 0, 96)
    assert scenes.VERSION == 1
    assert scene.classes == [7]
    assert scene.boxes == [(50, 70, 71, 91)]
    assert scene.image.sum() == pytest.approx(2784776, rel=1e-4)


def test_a_box_is_exactly_what_its_object_covers(monkeypatch):
    """Against the pixels that are painted; objects come after everything that distracts."""
    painted = []
    paint = scenes._paint

    def watch(canvas, mask, corner, colour):
        blank = np.zeros_like(canvas)
        paint(blank, np.where(mask > scenes._COVERED, 1.0, 0.0), corner, np.ones(3))
        painted.append(blank[:, :, 0] > 0)
        paint(canvas, mask, corner, colour)

    monkeypatch.setattr(scenes, "_paint", watch)
    for index in range(6):
        painted.clear()
        scene = scenes.draw(SMALL, "train", index, 128)
        objects = painted[-len(scene.boxes) :] if scene.boxes else []
        for cover, (left, top, right, bottom) in zip(objects, scene.boxes, strict=True):
            rows, columns = np.nonzero(cover)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)


def test_every_kind_occurs_and_every_scene_has_an_object():
    drawn = [scenes.draw(GlyphScenes(classes=16), "train", index, 128) for index in range(60)]
    assert {kind for scene in drawn for kind in scene.classes} == set(range(16))
    assert all(scene.classes for scene in drawn)
    assert max(len(scene.classes) for scene in drawn) > 4


def _shares(difficulty):
    drawn = [scenes.draw(GlyphScenes(difficulty=difficulty), "train", index, 128) for index in range(25)]
    return np.array(
        [(right - left) * (bottom - top) / 128**2 for scene in drawn for left, top, right, bottom in scene.boxes]
    )


def test_harder_scenes_have_smaller_objects_of_more_sizes():
    easy, hard = _shares(0.0), _shares(1.0)
    assert hard.min() < easy.min()
    assert np.median(hard) < np.median(easy)


def test_objects_stay_visible(monkeypatch):
    """Of every object at least the promised share of pixels is left after all later ones."""
    kept = []
    place = scenes._place

    def watch(rng, mask, others, size, hard):
        found = place(rng, mask, others, size, hard)
        if found is not None:
            kept.append([((one & ~found[1]).sum() / area) for one, area in others])
        return found

    monkeypatch.setattr(scenes, "_place", watch)
    for index in range(20):
        scenes.draw(GlyphScenes(difficulty=1.0, objects=20), "train", index, 96)
    shares = [share for one in kept for share in one]
    assert len(shares) > 50
    assert min(shares) >= scenes.VISIBLE
    assert any(share < 1 for share in shares)


def test_a_set_is_written_once_in_yolos_format(tmp_path):
    path = scenes.make(SMALL, 64, tmp_path)
    images = sorted(path.parent.glob("images/*/*.png"))
    assert [sum(image.parent.name == split for image in images) for split in scenes.SPLITS] == [6, 3, 4]
    scene = scenes.draw(SMALL, "val", 2, 64)
    assert np.array_equal(np.asarray(Image.open(path.parent / "images/val/000002.png")), scene.image)
    lines = (path.parent / "labels/val/000002.txt").read_text().splitlines()
    for line, kind, box in zip(lines, scene.classes, scene.boxes, strict=True):
        number, x, y, width, height = (float(word) for word in line.split())
        found = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2]) * 64
        assert int(number) == kind
        assert found == pytest.approx(box, abs=1e-3)
    before = {image: image.stat().st_mtime_ns for image in images}
    assert scenes.make(SMALL, 64, tmp_path) == path
    assert {image: image.stat().st_mtime_ns for image in images} == before
    assert scenes.make(SMALL, 96, tmp_path) != path
    assert not list(tmp_path.glob(".*"))


def test_another_process_may_be_faster(tmp_path, monkeypatch):
    """What it has written stays, and nothing is left of the slower one's."""
    rename = scenes.Path.rename

    def late(self, target):
        (target / "images").mkdir(parents=True)
        (target / "data.yaml").write_text("theirs")
        return rename(self, target)

    monkeypatch.setattr(scenes.Path, "rename", late)
    path = scenes.make(SMALL, 64, tmp_path)
    assert path.read_text() == "theirs"
    assert [one.name for one in tmp_path.iterdir()] == [path.parent.name]
