from __future__ import annotations

import numpy as np
import pytest

from dms_bench_tasks.classification import glyphs
from dms_bench_tasks.classification.data_spec import GlyphsData


def data(**options: object) -> GlyphsData:
    return GlyphsData.model_validate({"train": 300, "val": 50, "test": 50} | options)


def test_the_same_fields_give_the_same_images() -> None:
    for one, other in zip(glyphs.generate(data(), "val", 32, 1), glyphs.generate(data(), "val", 32, 1), strict=True):
        assert np.array_equal(one, other)


def test_seed_and_difficulty_change_the_images() -> None:
    images, _ = glyphs.generate(data(), "val", 32, 1)
    assert not np.array_equal(images, glyphs.generate(data(seed=1), "val", 32, 1)[0])
    assert not np.array_equal(images, glyphs.generate(data(difficulty=0.4), "val", 32, 1)[0])


def test_a_larger_split_begins_with_the_smaller_one() -> None:
    few, many = glyphs.generate(data(train=260), "train", 16, 1), glyphs.generate(data(train=520), "train", 16, 1)
    assert np.array_equal(few[0], many[0][:260])
    assert np.array_equal(few[1], many[1][:260])


def test_splits_have_no_image_in_common() -> None:
    seen: set[bytes] = set()
    total = 0
    for split in glyphs.SPLITS:
        images, _ = glyphs.generate(data(), split, 32, 1)
        seen |= {image.tobytes() for image in images}
        total += len(images)
    assert len(seen) == total


@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_labels(channels: int) -> None:
    images, labels = glyphs.generate(data(classes=7), "train", 24, channels)
    assert images.shape == (300, channels, 24, 24)
    assert images.dtype == np.uint8
    assert set(labels.tolist()) == set(range(7))
    if channels == 3:
        assert (images[:, 0] != images[:, 1]).mean() > 0.5


def test_every_character_of_every_font_is_drawn_and_fits() -> None:
    bank = glyphs.glyph_bank()
    assert bank.shape[:2] == (len(glyphs.FONTS), len(glyphs.CHARACTERS))
    assert bank.sum((2, 3)).min() > 20
    border = bank.clone()
    border[:, :, 1:-1, 1:-1] = 0
    assert border.max() == 0
    flat = bank.flatten(2)
    for font in flat:  # a font that lacks characters draws the same box for all of them
        assert len({character.numpy().tobytes() for character in font}) == len(glyphs.CHARACTERS)


def test_harder_images_are_noisier_and_fainter() -> None:
    easy, _ = glyphs.generate(data(difficulty=0.0), "val", 32, 1)
    hard, _ = glyphs.generate(data(difficulty=1.0), "val", 32, 1)
    noise = [np.abs(np.diff(images.astype(float), axis=3)).mean() / images.std() for images in (easy, hard)]
    assert noise[1] > 2 * noise[0]
