"""Image files of a data set: which cannot be read or are passed over, and 8 bits of those that hold more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timm.data.readers.img_extensions import get_img_extensions

from dms_bench.errors import UserError
from dms_bench_tasks.classification.data_spec import PICTURES
from dms_bench_tasks.common.left_out import LeftOut

#: Images of a split that are decoded before anything is trained, evenly spread; there may be millions.
LOOKED_AT = 2000
#: Pillow's name of what an image holds, where no rule makes 8 bits of it.
_UNKNOWN = {"F": "numbers with a fraction", "I": "integers of 32 bits"}


def eight_bits(image: Image.Image) -> Image.Image:
    """Return an image that can be converted: of 16 bits the high byte, as OpenCV and Ultralytics take it.

    Raises:
        UserError: it holds something else, of which Pillow would make white or black.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in _UNKNOWN:
        raise UserError(f"an image holds {_UNKNOWN[image.mode]}: store images with 8 or 16 bits")
    return image


def looked_at(dataset: Any, indices: Sequence[int] | np.ndarray[Any, Any], named: str) -> LeftOut:
    """Return which of a data set's images cannot be read; of many, which of some.

    Args:
        dataset: timm's `ImageDataset`.
        indices: its images.
        named: the split, as messages name it.

    Raises:
        UserError: an image holds what cannot be converted.
    """
    chosen = [int(indices[place]) for place in np.unique(np.linspace(0, len(indices) - 1, LOOKED_AT).astype(int))]
    lost, example = 0, ""
    for index in chosen:
        try:
            with dataset.reader[index][0] as file, Image.open(file) as image:
                image.load()
                eight_bits(image)
        except UserError as error:
            text = str(error).replace("an image", f"{_name(dataset, index)!r}", 1)
            raise UserError(f"{named}: {text}") from error
        except Exception as error:  # decoders raise whatever they meet
            lost += 1
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            example = example or f"{_name(dataset, index)!r}: {reason}; the next one is taken in its place"
    return LeftOut(lost, len(chosen), example)


def other_endings(dataset: Any) -> LeftOut:
    """Return the images of a folder that timm passes over for the ending of their names."""
    root = getattr(dataset.reader, "root", None)
    if not hasattr(dataset.reader, "samples") or not isinstance(root, str) or not os.path.isdir(root):
        return LeftOut(0, 0, "")
    passed_over = set(PICTURES) - get_img_extensions(as_set=True)
    names = [
        os.path.join(folder, name)
        for folder, _, files in os.walk(root, followlinks=True)
        for name in sorted(files)
        if Path(name).suffix.lower() in passed_over
    ]
    example = f"{names[0]!r}: timm reads {', '.join(get_img_extensions())}" if names else ""
    return LeftOut(len(names), len(names), example)


def _name(dataset: Any, index: int) -> str:
    try:
        return str(dataset.filename(index, absolute=True))
    except Exception:  # not all readers know names
        return f"image {index}"
