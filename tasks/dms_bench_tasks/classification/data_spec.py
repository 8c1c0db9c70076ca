"""Which images a suite names: embedded sets, and whatever timm reads.

Reading it imports neither torch nor timm.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from dms_bench.config.base import Spec
from dms_bench.config.units import WholeCount
from dms_bench_tasks.common.place import folder_name

Share = Annotated[float, Field(ge=0, lt=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
#: Sets that need no files, by name.
EMBEDDED = ("glyphs", "digits", "fashion_mnist")
#: Endings of images' names; timm reads some of them.
PICTURES = (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
#: They are drawn, and held in memory.
RenderedImages = Annotated[WholeCount, Field(le=1_000_000)]


class GlyphsData(Spec):
    """Rendered characters under distortion and clutter, drawn as many and as hard as asked."""

    name: Literal["glyphs"] = "glyphs"
    """`glyphs`: rendered characters, which need no files."""
    train: RenderedImages = 4000
    """Images of the training split; a larger split begins with the images of a smaller one."""
    val: RenderedImages = 1000
    """Images of the validation split."""
    test: RenderedImages = 2000
    """Images of the test split."""
    classes: Annotated[int, Field(ge=2, le=36)] = 36
    """How many of the 36 characters are told apart."""
    difficulty: Annotated[float, Field(ge=0, le=1)] = 0.5
    """0: upright, clean and centred; 1: strongly distorted, cluttered, noisy and faint."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the images. It is not the trial's: all trials of a suite see the same images."""

    def label(self) -> str:
        """Return the set's short name."""
        return self.name


class DigitsData(Spec):
    """The 1,797 real handwritten digits of scikit-learn, scaled up to `image_size`."""

    name: Literal["digits"] = "digits"
    """`digits`: scikit-learn's handwritten digits, which come with it."""
    val_fraction: OpenShare = 0.2
    """Share of the set held out for validation, the same of every class."""
    test_fraction: OpenShare = 0.2
    """Share of the set held out for the test, the same of every class."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the split."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 10

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction leave nothing to train on")
        return self

    def label(self) -> str:
        """Return the set's short name."""
        return self.name


class FashionData(Spec):
    """Fashion-MNIST: real pictures of ten kinds of clothes, 28 x 28, scaled to `image_size`; a part is embedded."""

    name: Literal["fashion_mnist"] = "fashion_mnist"
    """`fashion_mnist`: pictures of clothes, of which 22,000 come with the package."""
    train: Annotated[WholeCount, Field(le=60_000)] = 10_000
    """Pictures of the training split, of each class alike; a larger split begins with those of a smaller one."""
    val: Annotated[WholeCount, Field(le=60_000)] = 2_000
    """Pictures of the validation split, which the original has for training, too."""
    test: Annotated[WholeCount, Field(le=10_000)] = 10_000
    """Pictures of the test split, of the original's 10,000."""
    root: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None
    """Folder of the original's four files, for more than 10,000 pictures to train on or 2,000 to validate: the one that
    `dms-bench data get fashion_mnist` makes, that of Debian's package `dataset-fashion-mnist`, or torchvision's."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 10

    @model_validator(mode="after")
    def _are_there(self) -> Self:
        if self.root is None and (self.train > 10_000 or self.val > 2_000):
            raise ValueError(
                f"train {self.train} and val {self.val}: 10000 and 2000 pictures come with the package; give 'root', "
                "the folder of the original, for more"
            )
        if self.train + self.val > 60_000:
            raise ValueError(f"train {self.train} and val {self.val} share the original's 60000 pictures")
        return self

    def label(self) -> str:
        """Return the set's short name."""
        return self.name

    def identity(self) -> Self:
        """Return the data as they are known wherever the original lies; the part that comes along is the original's."""
        return self.model_copy(update={"root": None})


class Splits(Spec):
    """The data set's own names for its splits (or its sub-folders)."""

    train: str = "train"
    """Name of the training split, or its sub-folder."""
    val: str | None = None
    """Name of the split for validation. null: hold out `val_fraction` of `train`, for sets without a split to spare."""
    test: str | None = "validation"
    """Name of the split that is measured once, at the end. null: hold out `test_fraction` of `train`, for a folder of
    classes without splits (whose `train` is `.`, the folder itself)."""

    @model_validator(mode="after")
    def _test_is_separate(self) -> Self:
        named = [name for name in (self.train, self.val, self.test) if name is not None]
        if len(set(named)) < len(named):
            raise ValueError(f"train {self.train!r}, val {self.val!r} and test {self.test!r} must be different splits")
        return self


#: Data sets of timm's that are whatever lies in `root`.
_FOLDERS = ("torch/image_folder", "torch/folder", "wds/")


class TimmData(Spec):
    """Any data set that `timm.data.create_dataset` opens."""

    name: Literal["timm"] = "timm"
    """`timm`: a data set that timm opens."""
    dataset: str = ""
    """timm's name of the set: empty for a folder of images, torch/cifar10, hfds/<repository>, wds/<name>, ..."""
    root: str | None = None
    """Folder of the data; needed for a folder of images."""
    called: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None
    """Name of the data on boards, where it is not the folder's or the set's. null: that."""
    splits: Splits = Splits()
    """The data set's own names for its splits."""
    classes: Annotated[int, Field(ge=2)]
    """Number of classes."""
    val_fraction: OpenShare = 0.1
    """Share of `train` that is held out for validation where `splits.val` is not given."""
    # In no hash of a trial without it.
    test_fraction: Annotated[OpenShare | None, Field(exclude_if=lambda value: value is None)] = None
    """Share of `train` that is held out for the test, where `splits.test` is null."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of what is held out."""
    train_images: WholeCount | None = None
    """Images of `splits.train`, to plan a suite on a machine that does not have them; checked where they are."""
    class_map: str | None = None
    """timm's option: file that maps folder names to class numbers."""
    download: bool = False
    """timm's option: let the data set be downloaded, where its source allows that."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that decode and augment, per worker of the trial."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel that images are normalised by, in [0, 1]. null: what the model's configuration in timm
    says."""
    std: tuple[float, ...] | None = None
    """Deviation of each channel that images are normalised by. null: what the model's configuration in timm says."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """How images are resized for validation and test. null: what the model's configuration in timm says."""
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the resized image that the central crop keeps in validation and test. null: what the model's
    configuration in timm says."""

    @model_validator(mode="after")
    def _a_folder_needs_a_root(self) -> Self:
        if not self.dataset and self.root is None:
            raise ValueError("give 'root' (a folder of images) or 'dataset' (a data set that timm knows)")
        return self

    @model_validator(mode="after")
    def _a_test_is_held_out_or_there(self) -> Self:
        if (self.splits.test is None) != (self.test_fraction is not None):
            raise ValueError("give 'test_fraction' where splits.test is null, and only there")
        if self.splits.test is None and self.splits.val is not None:
            raise ValueError("splits.val names a split, but splits.test is null: name both, or let both be held out")
        if self.test_fraction is not None and self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction leave nothing to train on")
        return self

    @property
    def folder(self) -> str | None:
        """The folder of the data, `~` written out."""
        return None if self.root is None else os.path.expanduser(self.root)

    def label(self) -> str:
        """Return the set's short name."""
        name = self.called or self.dataset or str(self.root)
        return name.rstrip("/").rpartition("/")[2]

    def identity(self) -> Self:
        """Return the data as they are known wherever they lie: a folder of images by its name."""
        by_folder = not self.dataset or self.dataset.lower().startswith(_FOLDERS)
        root = f"data/{self.called or folder_name(str(self.root))}" if by_folder else None
        return self.model_copy(update={"root": root, "called": None, "workers": 2, "download": False})


def name_alone(value: Any) -> Any:
    """Return a mapping of what may be a set's name alone."""
    return {"name": value} if isinstance(value, str) else value


Data = Annotated[
    Annotated[GlyphsData | DigitsData | FashionData | TimmData, Field(discriminator="name")],
    BeforeValidator(name_alone),
]
