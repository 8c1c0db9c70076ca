"""timm's data sets: folders of images, torchvision, Hugging Face, WebDataset, as timm loads them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import ImageDataset, create_dataset, create_loader, resolve_data_config
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from dms_bench.errors import TrialFailure, UserError, nearest
from dms_bench.pace import paced
from dms_bench_tasks.classification.data import EVALUATION_BATCH, Batch, Split, micro_batch, steps_per_epoch
from dms_bench_tasks.classification.data_spec import TimmData
from dms_bench_tasks.classification.model import network
from dms_bench_tasks.classification.pictures import eight_bits, looked_at, other_endings
from dms_bench_tasks.classification.recipe import ClassificationRecipe
from dms_bench_tasks.common.left_out import LeftOut, say
from dms_bench_tasks.common.sharding import WHOLE, Shard, derive_seed

#: As many images that cannot be read are passed over, as in timm.
_DAMAGED_IN_A_ROW = 10
#: Batches that a process of a loader has ready at most: PyTorch's own number.
_EACH_AHEAD = 2
_PREFIXES = ("torch", "hfds", "hfids", "wds", "tfds")
#: It would say of every image that it passes over that it does, every time; `check` says it once.
logging.getLogger("timm.data.dataset").setLevel(logging.ERROR)
#: The modules that timm's readers import, by prefix.
_PACKAGES = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset", "tfds": "tensorflow_datasets"}


class View(Dataset[Any]):
    """Some images of a data set, with a transform of its own (timm's loader sets it).

    Args:
        dataset: of images as they are stored.
        indices: which of them.
        mode: Pillow's name of what they are converted to; None leaves that to the data set.
    """

    def __init__(self, dataset: Any, indices: np.ndarray | range, mode: str | None = None) -> None:
        self.dataset, self.indices, self.mode = dataset, indices, mode
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        for _ in range(_DAMAGED_IN_A_ROW):
            image, target = self.dataset[int(self.indices[index])]
            try:
                image = eight_bits(image).convert(self.mode) if self.mode else image
            except OSError:  # damaged: timm takes the next one, too
                index = (index + 1) % len(self)
            else:
                return self.transform(image) if self.transform else image, target
        raise TrialFailure(f"{_DAMAGED_IN_A_ROW} images in a row cannot be read")


class TimmSource:
    """A data set of `timm.data.create_dataset`; without a `val` split, a part of `train` is held out."""

    def __init__(self, data: TimmData, size: int, channels: int) -> None:
        self.data, self.size, self.channels = data, size, channels
        # Once per source: opening may scan a folder of a million files.
        self._create_split = cache(self._create_uncached)

    def check(self) -> None:
        """Open every split and look at its classes and first image."""
        splits: tuple[Split, ...] = ("train", "val", "test")
        sources = [self.open(split) for split in splits]
        for split, dataset in zip(splits, sources, strict=True):
            if not isinstance(dataset, View):
                continue  # streams are not read ahead
            expected = self.data.train_images
            if split == "train" and expected is not None and len(dataset.dataset) != expected:
                raise UserError(
                    f"data {self.data.label()!r}: train has {len(dataset.dataset)} images, not train_images: {expected}"
                )
            image, _ = dataset[0]
            bands = len(image.getbands())
            if bands != self.channels:
                raise UserError(
                    f"data {self.data.label()!r}: {split} images have {bands} channels: set channels: {bands}"
                )
            names = _class_names(dataset.dataset)
            if names is not None and len(names) != self.data.classes:
                raise UserError(
                    f"data {self.data.label()!r}: {split} has {len(names)} classes, not classes: {self.data.classes}"
                )
            if names != _class_names(sources[0].dataset):
                raise UserError(f"data {self.data.label()!r}: {split} has other classes than train")
        say(self.data.label(), self.left_out())

    def left_out(self) -> dict[str, LeftOut]:
        """Return what is not used of each split. Raises UserError for images that hold more than 8 bits can."""
        lost = {}
        for split in ("train", "val", "test"):
            view = self.open(split)
            if isinstance(view, View) and view.mode:
                named = f"data {self.data.label()!r}: {split}"
                lost[split] = looked_at(view.dataset, view.indices, named)
                if split == "train" or getattr(self.data.splits, split) is not None:  # or its folder is that of train
                    lost[split] = lost[split] + other_endings(view.dataset)
        return lost

    def check_recipe(self, recipe: ClassificationRecipe) -> None:
        """Raise UserError for options of the embedded sets."""
        if recipe.shift:
            raise UserError("shift is for the embedded sets; timm's images are cropped at random ('scale')")

    def train_samples(self) -> int:
        """Return the number of training images; where the suite gives it, the data need not be there."""
        data = self.data
        if data.train_images is None:
            return len(self.open("train"))
        return data.train_images - sum(self._held(data.train_images))

    def _held(self, images: int) -> tuple[int, int]:
        """Return how many of the images are held out for selection, and for the test."""
        data = self.data
        selection = max(1, round(images * data.val_fraction)) if data.splits.val is None else 0
        return selection, max(1, round(images * data.test_fraction)) if data.test_fraction is not None else 0

    def train(
        self, model: nn.Module, recipe: ClassificationRecipe, shard: Shard, device: torch.device, seed: int
    ) -> TimmBatches:
        """Return this worker's part of the training batches."""
        return TimmBatches(self, model, recipe, shard, device, seed)

    def evaluation(
        self, model: nn.Module, split: Split, device: torch.device, shard: Shard = WHOLE, limit: int | None = None
    ) -> Iterator[Batch]:
        """Return each image of the split once, or `limit` drawn at random (the first, of a stream)."""
        dataset = self.open(split)
        if isinstance(dataset, View):
            chosen = np.asarray(dataset.indices)
            if limit is not None:
                chosen = np.random.default_rng(self.data.seed).permutation(chosen)[:limit]
            dataset = View(dataset.dataset, chosen[shard.rank :: shard.count], dataset.mode)
        seen = 0
        loader = self.loader(dataset, model, EVALUATION_BATCH, device, is_training=False)
        for images, labels in paced(loader, _length(loader), size=EVALUATION_BATCH, ahead=self.ahead):
            yield images, labels
            seen += len(labels)
            if limit is not None and seen >= limit:
                return

    @property
    def ahead(self) -> int:
        """Batches that loaders may have ready: those of their processes, and the one that is on its way to a device."""
        return _EACH_AHEAD * self.data.workers + 1 if self.data.workers else 0

    def loader(self, dataset: Any, model: nn.Module, batch_size: int, device: torch.device, **options: Any) -> Any:
        """Return timm's loader with the model's own input configuration, where the data gives none."""
        return create_loader(
            dataset,
            batch_size=batch_size,
            num_workers=self.data.workers,
            device=device,
            pin_memory=device.type == "cuda",
            # Workers live for an epoch: living longer, they would carry random state across a resume.
            persistent_workers=False,
            **{**self._input(model), **options},
        )

    def statistics(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Return mean and deviation, [channels] each, that a network's images are normalised by."""
        config = self._input(model)
        return torch.tensor(config["mean"]), torch.tensor(config["std"])

    def normalisation(self, model: nn.Module) -> str:
        """Say mean and deviation of each channel, and how timm brings pictures to the network's size."""
        config = self._input(model)
        mean, deviation = (", ".join(f"{value:.6g}" for value in config[name]) for name in ("mean", "std"))
        by_size = f"resized ({config['interpolation']}) and cut to {config['crop_pct']:.3g} in the middle"
        return f"from 0 to 1, less ({mean}), divided by ({deviation}), by channel; pictures are {by_size}"

    def _input(self, model: nn.Module) -> dict[str, Any]:
        options = {"in_chans": self.channels, "input_size": (self.channels, self.size, self.size)}
        for name in ("mean", "std", "crop_pct", "interpolation"):
            options[name] = getattr(self.data, name)
        config: dict[str, Any] = resolve_data_config(options, model=network(model))
        if self.channels == 1:
            config |= {name: (float(np.mean(config[name])),) for name in ("mean", "std")}
        return config

    def open(self, split: Split) -> Any:
        """Return a split without a transform: a `View`, or a stream."""
        names = self.data.splits
        named = {"train": names.train, "val": names.val or names.train, "test": names.test or names.train}
        dataset = self._create_split(named[split])
        if isinstance(dataset, IterableDataset):
            if names.val is None:
                raise UserError(f"data {self.data.dataset!r} is a stream: name its selection split in 'splits.val'")
            if names.test is None:
                raise UserError(f"data {self.data.dataset!r} is a stream: name its test split in 'splits.test'")
            return dataset
        if names.val is not None or (split == "test" and names.test is not None):
            return View(dataset, range(len(dataset)), self._mode)
        order = np.random.default_rng(self.data.seed).permutation(len(dataset))
        selection, test = self._held(len(dataset))
        if selection + test >= len(dataset):
            fractions = "val_fraction and test_fraction leave" if test else "val_fraction leaves"
            raise UserError(f"data {self.data.label()!r}: {fractions} nothing of {len(dataset)} images")
        parts = {
            "val": order[:selection],
            "test": order[selection : selection + test],
            "train": order[selection + test :],
        }
        return View(dataset, np.sort(parts[split]), self._mode)

    @property
    def _mode(self) -> str | None:
        """What images are converted to, in Pillow's words; None for torchvision's sets, which are as they are."""
        if self.data.dataset.lower().startswith("torch/"):
            return None
        return "L" if self.channels == 1 else "RGB"

    def _create_uncached(self, split: str) -> Any:
        data = self.data
        prefix, slash, _ = data.dataset.partition("/")
        if data.dataset and not (slash and prefix.lower() in _PREFIXES):
            raise UserError(f"unknown data set {data.dataset!r}: {nearest(prefix, _PREFIXES)} (as in torch/cifar10)")
        package = _PACKAGES.get(prefix.lower())
        if package is not None and find_spec(package) is None:
            raise UserError(f"data set {data.dataset!r} needs the package {package!r}, which is not installed")
        root = data.folder
        if root is not None and not data.download and not Path(root).exists() and "://" not in root:
            raise UserError(f"data folder {data.root!r} does not exist")
        if not data.dataset and root is not None and Path(root).is_dir():
            self._check_split_folder(Path(root), split)
        mode = {"input_img_mode": self._mode} if self._mode else {}
        try:
            dataset = create_dataset(
                data.dataset,
                root=root,
                split=split,
                class_map=data.class_map and os.path.expanduser(data.class_map),
                download=data.download,
                seed=data.seed,
                **mode,
            )
        except Exception as error:  # readers raise whatever their library raises
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"data {data.dataset or data.root!r}, split {split!r}: {reason}") from error
        if isinstance(dataset, ImageDataset):
            dataset.input_img_mode = None  # a `View` converts: Pillow makes white of all that is above 255
        return dataset

    def _check_split_folder(self, root: Path, split: str) -> None:
        """Timm falls back to the whole root where a split's folder is missing: that would mix splits."""
        synonyms = {"train": ("training",), "validation": ("val", "valid", "eval", "evaluation")}
        if not any((root / name).is_dir() for name in (split, *synonyms.get(split, ()))):
            folders = [entry.name for entry in root.iterdir() if entry.is_dir()]
            raise UserError(f"data folder {str(root)!r} has no split {split!r}: {nearest(split, folders)}")


def _class_names(dataset: Any) -> dict[str, int] | None:
    """Return the classes of a folder or of a torchvision set; None where they are not known."""
    names: dict[str, int] | None = getattr(getattr(dataset, "reader", dataset), "class_to_idx", None)
    return names


def _length(loader: Any) -> int | None:
    """Return the number of batches; None of a stream that does not know it."""
    try:
        return len(loader)
    except TypeError:
        return None


class TimmBatches:
    """timm's training loader, its order and augmentation seeded anew for every epoch."""

    def __init__(
        self,
        source: TimmSource,
        model: nn.Module,
        recipe: ClassificationRecipe,
        shard: Shard,
        device: torch.device,
        seed: int,
    ) -> None:
        self.seed = seed
        self._size = size = micro_batch(recipe, shard)
        self._parts, self._ahead = recipe.grad_accum_steps, source.ahead
        self.steps = steps_per_epoch(source.train_samples(), recipe)
        self._batches = self.steps * recipe.grad_accum_steps
        self._loader = source.loader(
            source.open("train"),
            model,
            size,
            device,
            is_training=True,
            distributed=shard.count > 1,
            auto_augment=recipe.aa,
            color_jitter=recipe.color_jitter,
            hflip=recipe.hflip,
            scale=recipe.scale,
            ratio=recipe.ratio,
            interpolation=recipe.train_interpolation,
            re_prob=recipe.reprob,
            re_mode=recipe.remode,
        )

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Return the batches of one epoch; the order depends on the seed and the epoch only."""
        seed = derive_seed(self.seed, epoch)
        sampler, dataset = self._loader.sampler, self._loader.dataset
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(seed)  # the distributed sampler seeds its permutation with just this
        elif hasattr(sampler, "generator"):
            sampler.generator = torch.Generator().manual_seed(seed)  # the same permutation, for one worker
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(epoch)
        return paced(self._epoch(), self._batches, size=self._size, parts=self._parts, ahead=self._ahead)

    def _epoch(self) -> Iterator[Batch]:
        for number, batch in enumerate(self._loader):
            if number == self._batches:
                break
            yield batch
