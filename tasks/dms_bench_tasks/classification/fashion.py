"""Fashion-MNIST (Xiao et al. 2017): real pictures of clothes, of which a part comes with the package.

https://github.com/zalandoresearch/fashion-mnist, under the MIT licence (`fashion_mnist.LICENSE`). The part is without
loss: pictures and labels are the original's, in an order in which each prefix has the classes alike.
"""

from __future__ import annotations

import gzip
import io
import lzma
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dms_bench.data import advice
from dms_bench.errors import UserError
from dms_bench_tasks.classification.data_spec import FashionData

Pictures = tuple[NDArray[np.uint8], NDArray[np.uint8]]
#: Pictures of the part: of the original's for training the first and the last in our order, and all for testing.
PART = {"train": 10_000, "val": 2_000, "test": 10_000}
WHOLE = {"train": 60_000, "test": 10_000}
#: Height and width of a picture in pixels.
SIZE = 28
PACKED = Path(__file__).with_name("fashion_mnist.npz.xz")
#: The original's files, by our names of what is in them.
_FILES = {"train": "train", "test": "t10k"}


def load(data: FashionData, split: str, size: int, channels: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return one split.

    Args:
        data: how many pictures, and where the original is, where more are asked for than come with the package.
        split: `train`, `val` or `test`.
        size: height and width in pixels (bilinear).
        channels: the grey picture is repeated in each.

    Returns:
        pictures of shape [n, channels, size, size] and labels of shape [n].

    Raises:
        UserError: the original is not there, or damaged.
    """
    import torch
    import torch.nn.functional as F

    pictures, labels = _split(data, split)
    whole = torch.from_numpy(pictures).unsqueeze(1)
    if size != SIZE:
        whole = F.interpolate(whole.float(), size=(size, size), mode="bilinear", align_corners=False)
    whole = whole.round().to(torch.uint8).expand(-1, channels, -1, -1)
    return whole.numpy().copy(), labels.astype(np.int64)


def _split(data: FashionData, split: str) -> Pictures:
    number = int(getattr(data, split))
    if data.root is None:
        pictures, labels = _packed()[split]
    else:
        pictures, labels = original(data.root)["test" if split == "test" else "train"]
    # Validation begins at the end, so that it is the same for every number of pictures to train on.
    chosen = slice(len(labels) - number, None) if split == "val" else slice(number)
    return pictures[chosen], labels[chosen]


@cache
def original(root: str) -> dict[str, Pictures]:
    """Return the original's two splits in our order: pictures [n, 28, 28] and labels [n].

    Args:
        root: folder of its four files, as they are published or unpacked, or torchvision's, which has them further in.

    Raises:
        UserError: one is missing or damaged.
    """
    splits = {}
    given = Path(root).expanduser()
    # torchvision is given the folder above its own.
    folder = next((path for path in (given / "FashionMNIST" / "raw", given / "raw") if path.is_dir()), given)
    for split, name in _FILES.items():
        pictures, labels = (
            _idx(folder, f"{name}-{kind}-idx{dims}-ubyte", dims) for kind, dims in (("images", 3), ("labels", 1))
        )
        if pictures.shape != (WHOLE[split], SIZE, SIZE) or labels.shape != (WHOLE[split],) or labels.max() > 9:
            raise UserError(f"data.root {root!r}: its {name} files are not those of Fashion-MNIST")
        order = in_turns(labels)
        splits[split] = pictures[order], labels[order]
    return splits


def in_turns(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return an order at random in which each ten labels are one of every class, as long as there are enough, [n]."""
    draw = np.random.default_rng(0)
    turn = np.empty(len(labels), dtype=np.int64)
    for kind in range(10):
        own = np.flatnonzero(labels == kind)
        turn[own] = draw.permutation(len(own))
    return np.lexsort((draw.permutation(len(labels)), turn))


def pack(root: str, path: Path) -> None:
    """Write the part that comes with the package.

    Args:
        root: folder of the original.
        path: the file.
    """
    whole = original(root)
    arrays: dict[str, Any] = {}
    for split, number in PART.items():
        pictures, labels = whole["test" if split == "test" else "train"]
        chosen = slice(len(labels) - number, None) if split == "val" else slice(number)
        arrays |= {f"{split}_pictures": pictures[chosen], f"{split}_labels": labels[chosen]}
    content = io.BytesIO()
    np.savez(content, **arrays)
    path.write_bytes(lzma.compress(content.getvalue(), preset=9))


@cache
def _packed() -> dict[str, Pictures]:
    with np.load(io.BytesIO(lzma.decompress(PACKED.read_bytes())), allow_pickle=False) as arrays:
        return {split: (arrays[f"{split}_pictures"], arrays[f"{split}_labels"]) for split in PART}


def _idx(folder: Path, name: str, dims: int) -> NDArray[np.uint8]:
    """Read a file of the format of MNIST: two zeros, the type, the dimensions, their sizes, the numbers."""
    path = next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
    if path is None:
        what = "it is the folder of Fashion-MNIST's four files"
        raise UserError(f"data.root {str(folder)!r} has no {name}.gz: {what}{advice(folder)}")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        shape = np.frombuffer(content, ">u4", dims, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dims).reshape(shape)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"data.root: {str(path)!r} is damaged: {error}") from error
