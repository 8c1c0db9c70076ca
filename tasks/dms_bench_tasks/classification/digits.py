"""scikit-learn's handwritten digits: 1,797 real images of 8 x 8 pixels, scaled up and split once."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dms_bench_tasks.classification.data_spec import DigitsData

#: How many there are.
SAMPLES = 1797


def train_samples(data: DigitsData) -> int:
    """Return the size of the training split, without loading anything."""
    rest = SAMPLES - math.ceil(data.test_fraction * SAMPLES)
    return rest - math.ceil(_val_share(data) * rest)


def load(data: DigitsData, split: str, size: int, channels: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return one split.

    Args:
        data: the shares held out, and the seed of the stratified split.
        split: `train`, `val` or `test`.
        size: height and width in pixels (bilinear).
        channels: the grey image is repeated in each.

    Returns:
        images of shape [n, channels, size, size] and labels of shape [n].
    """
    import torch
    import torch.nn.functional as F
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    index = split_indices(labels, data)[split]
    small = torch.from_numpy(images[index].reshape(-1, 1, 8, 8)).float() * (255 / 16)
    large = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    return large.round().to(torch.uint8).expand(-1, channels, -1, -1).numpy().copy(), labels[index].astype(np.int64)


def split_indices(labels: NDArray[np.int64], data: DigitsData) -> dict[str, NDArray[np.int64]]:
    """Divide the set, the same share of every class, into train, val and test."""
    from sklearn.model_selection import train_test_split

    def hold_out(index: NDArray[np.int64], share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        kept, held = train_test_split(index, test_size=share, stratify=labels[index], random_state=data.seed)
        return kept, held

    rest, test = hold_out(np.arange(len(labels)), data.test_fraction)
    train, val = hold_out(rest, _val_share(data))
    return {"train": train, "val": val, "test": test}


def _val_share(data: DigitsData) -> float:
    """Return the validation split's share of what is left when the test split is taken."""
    return data.val_fraction / (1 - data.test_fraction)
