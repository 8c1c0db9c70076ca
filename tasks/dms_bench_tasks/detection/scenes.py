"""Glyph scenes: rendered characters and shapes on textured backgrounds, with boxes, in YOLO's format.

Every image has a random generator of its own, seeded by (seed, split, index): the same fields give the
same images everywhere, and more images never change the earlier ones. Objects come in several sizes, turned,
in several fonts; later ones cover earlier ones, of which more than half must stay visible. Parts of other
characters, strokes and noise distract. A box is what the object itself covers, whether hidden or not.

Shape legend:
    H, W: height and width
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dms_bench_tasks.detection.spec import GlyphScenes

#: Part of the cache's key: raise it with every change of the images.
VERSION = 1
SPLITS = ("train", "val", "test")
#: Kinds of object, told apart in this order; letters that differ in shape under moderate rotation.
KINDS = (
    *("A", "circle", "B", "square", "E", "triangle", "G", "cross"),
    *("K", "ring", "M", "R", "S", "T", "X", "4"),
)
#: Characters that are drawn in parts, to distract.
OTHERS = "CDFHJLNPQUVWYZ235679"
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Bold"),
    *("STIXGeneral", "STIXGeneralBol", "cmr10", "cmss10", "cmtt10"),
)
#: An object of which less than this is left visible is not drawn over.
VISIBLE = 0.5
_COVERED = 0.3  # a pixel belongs to an object from this coverage on
_TRIES = 12


@dataclass
class Scene:
    """An image and what is in it.

    Attributes:
        image: [H, W, 3], uint8.
        classes: kind of each object.
        boxes: left, top, right, bottom of each, in pixels.
    """

    image: NDArray[np.uint8]
    classes: list[int]
    boxes: list[tuple[int, int, int, int]]


def draw(data: GlyphScenes, split: str, index: int, size: int) -> Scene:
    """Draw one image.

    Args:
        data: which images.
        split: one of `SPLITS`.
        index: number of the image in its split.
        size: height and width in pixels.
    """
    rng = np.random.default_rng([data.seed, SPLITS.index(split), index])
    hard = data.difficulty
    canvas = _background(rng, size)
    for _ in range(int(rng.integers(0, 2 + round(4 * hard)))):
        text = OTHERS[int(rng.integers(len(OTHERS)))]
        part = _turned(rng, _character(rng, text, _extent(rng, size, hard)), 180)
        half = part[:, : part.shape[1] // 2]  # a half is no character
        _paint(canvas, half, rng.integers(-half.shape[0] // 2, size, 2), _ink(rng, canvas, 0.5))
    for _ in range(round(3 * hard)):
        _stroke(rng, canvas)
    scene = Scene(np.empty(0, np.uint8), [], [])
    masks: list[tuple[NDArray[np.bool_], int]] = []
    for _ in range(int(rng.integers(1, data.objects + 1))):
        kind = int(rng.integers(data.classes))
        mask = _object(rng, KINDS[kind], _extent(rng, size, hard), 5 + 25 * hard)
        placed = _place(rng, mask, masks, size, hard)
        if placed is None:
            continue
        corner, covered = placed
        masks = [(visible & ~covered, area) for visible, area in masks] + [(covered, int(covered.sum()))]
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        scene.classes.append(kind)
        scene.boxes.append((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
        _paint(canvas, mask, corner, _ink(rng, canvas, 1 - 0.6 * hard))
    canvas += rng.normal(0, 0.01 + 0.07 * hard, canvas.shape)
    scene.image = (canvas.clip(0, 1) * 255).round().astype(np.uint8)
    return scene


def make(data: GlyphScenes, size: int, folder: Path) -> Path:
    """Return a data YAML with all three splits, drawn where `folder` does not hold them yet; safe to call at once.

    Args:
        data: which images.
        size: height and width in pixels.
        folder: cache; the set gets a folder of its own in it.
    """
    target = folder / f"glyph-scenes-{VERSION}-{size}-{data.content_hash()}"
    path = target / "data.yaml"
    if path.exists():
        return path
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    for split in SPLITS:
        for kind in ("images", "labels"):
            (unfinished / kind / split).mkdir(parents=True)
        for index in range(getattr(data, split)):
            _write(draw(data, split, index, size), unfinished, split, index)
    lines = [f"path: {target}", *(f"{split}: images/{split}" for split in SPLITS), "names:"]
    lines += [f"  {number}: '{KINDS[number]}'" for number in range(data.classes)]
    (unfinished / path.name).write_text("\n".join(lines) + "\n")
    try:
        unfinished.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(unfinished)
    return path


def _write(scene: Scene, folder: Path, split: str, index: int) -> None:
    Image.fromarray(scene.image).save(folder / "images" / split / f"{index:06d}.png", compress_level=1)
    size = len(scene.image)
    lines = [
        f"{kind} {(left + right) / 2 / size:.6f} {(top + bottom) / 2 / size:.6f} "
        f"{(right - left) / size:.6f} {(bottom - top) / size:.6f}\n"
        for kind, (left, top, right, bottom) in zip(scene.classes, scene.boxes, strict=True)
    ]
    (folder / "labels" / split / f"{index:06d}.txt").write_text("".join(lines))


def _extent(rng: np.random.Generator, size: int, hard: float) -> int:
    """Draw an object's size in pixels; every octave is equally likely."""
    low, high = 0.24 - 0.14 * hard, 0.5
    return max(8, round(size * low * float((high / low) ** rng.uniform())))


def _background(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Draw uneven colours, stripes and grain, [H, W, 3], values in [0, 1]."""
    coarse = (rng.uniform(0.2, 0.8, 3) + rng.uniform(-0.25, 0.25, (5, 5, 3))).clip(0, 1)
    image = Image.fromarray((coarse * 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    canvas = np.asarray(image, np.float64) / 255
    rows, columns = np.mgrid[:size, :size] / size
    angle, waves = rng.uniform(0, np.pi), rng.uniform(3, 16)
    stripes = np.sin(2 * np.pi * waves * (rows * np.cos(angle) + columns * np.sin(angle)) + rng.uniform(0, 6))
    return np.asarray((canvas + rng.uniform(0, 0.1) * stripes[:, :, None]).clip(0, 1))


def _object(rng: np.random.Generator, kind: str, extent: int, degrees: float) -> NDArray[np.float64]:
    """Draw an object of a kind, turned; coverage [h, w], cut to what it covers."""
    whole = _character(rng, kind, extent) if len(kind) == 1 else _shape(kind, extent)
    return _turned(rng, whole, degrees)


def _character(rng: np.random.Generator, text: str, extent: int) -> NDArray[np.float64]:
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{FONTS[int(rng.integers(len(FONTS)))]}.ttf"
    font = ImageFont.truetype(str(path), extent, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=font)
    return np.asarray(image, np.float64) / 255


def _shape(kind: str, extent: int) -> NDArray[np.float64]:
    """Draw a geometric shape, four times as large and then scaled down, so that its edges are smooth."""
    side = 4 * extent
    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    all_of_it, third = (0, 0, side - 1, side - 1), side / 3
    if kind == "circle":
        pen.ellipse(all_of_it, fill=255)
    elif kind == "square":
        pen.rectangle(all_of_it, fill=255)
    elif kind == "triangle":
        pen.polygon([(side / 2, 0), (side - 1, side - 1), (0, side - 1)], fill=255)
    elif kind == "cross":
        pen.rectangle((third, 0, 2 * third, side - 1), fill=255)
        pen.rectangle((0, third, side - 1, 2 * third), fill=255)
    else:
        pen.ellipse(all_of_it, outline=255, width=side // 5)
    return np.asarray(image.resize((extent, extent), Image.Resampling.BOX), np.float64) / 255


def _turned(rng: np.random.Generator, mask: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    image = Image.fromarray((mask * 255).round().astype(np.uint8))
    turned = image.rotate(rng.uniform(-degrees, degrees), Image.Resampling.BICUBIC, expand=True)
    box = turned.getbbox()
    return np.asarray(turned.crop(box) if box else turned, np.float64) / 255


def _place(
    rng: np.random.Generator,
    mask: NDArray[np.float64],
    masks: list[tuple[NDArray[np.bool_], int]],
    size: int,
    hard: float,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]] | None:
    """Find a place where enough of the others stays visible; the corner and the pixels covered, [H, W]."""
    height, width = mask.shape
    if height > size or width > size or not (mask > _COVERED).any():
        return None
    hidden = hard * (1 - VISIBLE)  # how much of another may be covered
    for _ in range(_TRIES):
        corner = np.array([rng.integers(size - height + 1), rng.integers(size - width + 1)])
        covered = np.zeros((size, size), np.bool_)
        covered[corner[0] : corner[0] + height, corner[1] : corner[1] + width] = mask > _COVERED
        if all((visible & ~covered).sum() >= (1 - hidden) * area for visible, area in masks):
            return corner, covered
    return None


def _ink(rng: np.random.Generator, canvas: NDArray[np.float64], contrast: float) -> NDArray[np.float64]:
    """Draw a colour that differs from the canvas by at least some contrast in brightness."""
    middle = float(canvas.mean())
    reach = (0.25 + 0.35 * contrast) * rng.uniform(1, 1.4)
    level = middle + reach if rng.uniform() < 1 - middle else middle - reach
    return np.asarray((level + rng.uniform(-0.15, 0.15, 3)).clip(0, 1))


def _paint(
    canvas: NDArray[np.float64], mask: NDArray[np.float64], corner: NDArray[np.int64], colour: NDArray[np.float64]
) -> None:
    """Lay a colour over the canvas where the mask covers it; what reaches beyond the edge is left out."""
    top, left = (int(edge) for edge in corner)
    mask = mask[max(0, -top) :, max(0, -left) :]
    top, left = max(0, top), max(0, left)
    part = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    cover = mask[: part.shape[0], : part.shape[1], None]
    part += (colour - part) * cover


def _stroke(rng: np.random.Generator, canvas: NDArray[np.float64]) -> None:
    """Draw a thin straight line across the canvas."""
    size = len(canvas)
    image = Image.new("L", (size, size))
    ends = [(float(x), float(y)) for x, y in rng.uniform(0, size, (2, 2))]
    ImageDraw.Draw(image).line(ends, fill=255, width=max(1, size // 80))
    _paint(canvas, np.asarray(image, np.float64) / 255, np.zeros(2, np.int64), _ink(rng, canvas, 0.5))
