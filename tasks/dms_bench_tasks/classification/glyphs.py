"""Rendered characters: a data set without files, as large and as hard as asked.

A character of one of several fonts is distorted by a random affine map and drawn, at random contrast,
on an uneven background among strokes and parts of other characters; then noise is added. Images come
in blocks, each with a random generator of its own that is seeded by (seed, split, block): the same
fields give the same images everywhere, and more images never change the earlier ones.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dms_bench_tasks.classification.data_spec import GlyphsData

#: Part of the cache's key: raise it with every change of the images.
VERSION = 1
#: Letters that differ in shape, not only in case or size, under moderate rotation.
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdeghnqrt"
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
    "cmr10", "cmb10", "cmss10", "cmtt10", "cmti10",
)  # fmt: skip
SPLITS = ("train", "val", "test")
_BLOCK = 250
_BANK_SIZE = 48
_NEIGHBOURS = 2
_STROKES = 3


def generate(data: GlyphsData, split: str, size: int, channels: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw one split.

    Args:
        data: which images.
        split: one of `SPLITS`.
        size: height and width in pixels.
        channels: 1 or 3.

    Returns:
        images of shape [n, channels, size, size] and labels of shape [n].
    """
    count = getattr(data, split)
    images = np.empty((count, channels, size, size), np.uint8)
    labels = np.empty(count, np.int64)
    for block, start in enumerate(range(0, count, _BLOCK)):
        rng = np.random.default_rng([data.seed, SPLITS.index(split), block])
        drawn, classes = _draw_block(rng, data.classes, data.difficulty, size, channels)
        part = slice(start, min(start + _BLOCK, count))
        images[part] = drawn[: part.stop - start]
        labels[part] = classes[: part.stop - start]
    return images, labels


@cache
def glyph_bank() -> Tensor:
    """Render every character in every font; shape [fonts, characters, 48, 48], values in [0, 1]."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    bank = np.zeros((len(FONTS), len(CHARACTERS), _BANK_SIZE, _BANK_SIZE), np.float32)
    for row, name in enumerate(FONTS):
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), 38, layout_engine=ImageFont.Layout.BASIC)
        for column, character in enumerate(CHARACTERS):
            left, top, right, bottom = font.getbbox(character)
            height, width = bottom - top, right - left
            image = Image.new("L", (_BANK_SIZE, _BANK_SIZE))
            corner = ((_BANK_SIZE - width) / 2 - left, (_BANK_SIZE - height) / 2 - top)
            ImageDraw.Draw(image).text(corner, character, fill=255, font=font)
            bank[row, column] = np.asarray(image, np.float32) / 255
    return torch.from_numpy(bank)


def _draw_block(
    rng: np.random.Generator, classes: int, difficulty: float, size: int, channels: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw `_BLOCK` images and their labels."""
    labels = rng.integers(classes, size=_BLOCK)
    target = _glyphs(rng, labels, size, difficulty, np.zeros((_BLOCK, 2)))
    paper, ink = _levels(rng, difficulty, channels)

    image = paper + (0.1 + 0.25 * difficulty) * _clouds(rng, size)
    for _ in range(_NEIGHBOURS):  # parts of other characters reach in from the border
        angle = rng.uniform(0, 2 * np.pi, _BLOCK)
        distance = rng.uniform(0.95, 1.5, _BLOCK) + (1 - difficulty)
        away = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        image = _paint(image, ink, _glyphs(rng, rng.integers(classes, size=_BLOCK), size, difficulty, away))
    image = _paint(image, ink, target)
    for _ in range(_STROKES):
        shown = rng.random((_BLOCK, 1, 1, 1)) < difficulty
        tint = torch.from_numpy(rng.uniform(0, 1, (_BLOCK, 1, 1, 1)).astype(np.float32))
        image = _paint(image, ink + (paper - ink) * tint, _stroke(rng, size) * torch.from_numpy(shown))
    noise = rng.standard_normal((_BLOCK, channels, size, size), dtype=np.float32)
    image = image + (0.02 + 0.14 * difficulty) * torch.from_numpy(noise)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy(), labels


def _levels(rng: np.random.Generator, difficulty: float, channels: int) -> tuple[Tensor, Tensor]:
    """Draw a dark and a light colour per image, each of shape [block, channels, 1, 1]."""
    contrast = rng.uniform(0.7 - 0.5 * difficulty, 0.9 - 0.2 * difficulty, (_BLOCK, 1, 1, 1))
    dark = rng.uniform(0, 1 - contrast)
    tint = rng.uniform(-0.1, 0.1, (2, _BLOCK, channels, 1, 1)) * (channels > 1)
    low, high = (dark + tint[0]).astype(np.float32), (dark + contrast + tint[1]).astype(np.float32)
    return torch.from_numpy(low), torch.from_numpy(high)


def _glyphs(
    rng: np.random.Generator, labels: NDArray[np.int64], size: int, difficulty: float, centre: NDArray[np.float64]
) -> Tensor:
    """Return the coverage, [block, 1, size, size], of characters in random fonts, affinely distorted.

    `centre` is the middle of each character; the image reaches from -1 to 1.
    """
    count = len(labels)
    angle = rng.uniform(-1, 1, count) * np.deg2rad(5 + 35 * difficulty)
    shear = rng.uniform(-1, 1, count) * 0.5 * difficulty
    scale = rng.uniform(0.9 - 0.35 * difficulty, 1.0, count)
    stretch = np.exp(rng.uniform(-1, 1, count) * 0.35 * difficulty)
    shift = centre + rng.uniform(-1, 1, (count, 2)) * (0.05 + 0.2 * difficulty)
    cos, sin = np.cos(angle), np.sin(angle)
    forward = np.empty((count, 2, 2))
    forward[:, 0, 0], forward[:, 0, 1] = cos * scale * stretch, (cos * shear - sin) * scale / stretch
    forward[:, 1, 0], forward[:, 1, 1] = sin * scale * stretch, (sin * shear + cos) * scale / stretch
    inverse = np.linalg.inv(forward)
    theta = np.concatenate([inverse, -inverse @ shift[:, :, None]], axis=2).astype(np.float32)
    masks = glyph_bank()[torch.from_numpy(rng.integers(len(FONTS), size=count)), torch.from_numpy(labels)]
    grid = F.affine_grid(torch.from_numpy(theta), [count, 1, size, size], align_corners=False)
    return F.grid_sample(masks[:, None], grid, align_corners=False)


def _clouds(rng: np.random.Generator, size: int) -> Tensor:
    """Return smooth random fields in [-1, 1], shape [block, 1, size, size]."""
    coarse = torch.from_numpy(rng.uniform(-1, 1, (_BLOCK, 1, 4, 4)).astype(np.float32))
    return F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)


def _stroke(rng: np.random.Generator, size: int) -> Tensor:
    """Return the coverage of one straight stroke per image, shape [block, 1, size, size]."""
    start = torch.from_numpy(rng.uniform(-1, 1, (_BLOCK, 2, 1, 1)).astype(np.float32))
    along = torch.from_numpy(rng.uniform(-1, 1, (_BLOCK, 2, 1, 1)).astype(np.float32))
    half_width = torch.from_numpy(rng.uniform(0.02, 0.07, (_BLOCK, 1, 1)).astype(np.float32))
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    offset = torch.stack(torch.meshgrid(axis, axis, indexing="xy")) - start
    share = ((offset * along).sum(1, keepdim=True) / (along * along).sum(1, keepdim=True)).clamp(0, 1)
    distance = (offset - share * along).square().sum(1).sqrt()
    return ((half_width - distance) * size / 2 + 0.5).clamp(0, 1)[:, None]


def _paint(image: Tensor, colour: Tensor, coverage: Tensor) -> Tensor:
    return image + (colour - image) * coverage
