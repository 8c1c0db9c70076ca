"""Embedded data sets: a whole split as one tensor, which beats worker processes on small images."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench.pace import paced
from dms_bench_tasks.classification import digits, fashion, glyphs
from dms_bench_tasks.classification.data import EVALUATION_BATCH, Batch, Split, micro_batch, steps_per_epoch
from dms_bench_tasks.classification.data_spec import DigitsData, FashionData, GlyphsData
from dms_bench_tasks.classification.recipe import ClassificationRecipe
from dms_bench_tasks.common.left_out import LeftOut
from dms_bench_tasks.common.sharding import WHOLE, Shard, derive_seed

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
#: Recipe options that only timm's image pipeline applies.
_PIPELINE_OPTIONS = ("aa", "color_jitter", "hflip", "scale", "ratio", "train_interpolation")


class EmbeddedSource:
    """`glyphs`, `digits` and `fashion_mnist`, normalised by the training split's mean and deviation."""

    def __init__(self, data: GlyphsData | DigitsData | FashionData, size: int, channels: int) -> None:
        self.data, self.size, self.channels = data, size, channels
        self._splits: dict[Split, tuple[Tensor, Tensor]] = {}

    def check(self) -> None:
        """Make all splits, so that workers find them in the cache."""
        for split in ("train", "val", "test"):
            self.tensors(split)

    def left_out(self) -> dict[str, LeftOut]:
        """Return nothing: the images are made here, or were packed whole."""
        return {}

    def check_recipe(self, recipe: ClassificationRecipe) -> None:
        """Raise UserError for options of timm's image pipeline, and for a batch that the set cannot fill."""
        # Compared with the defaults, as a recipe that was stored and read again names every field.
        fields = type(recipe).model_fields
        unsupported = [name for name in _PIPELINE_OPTIONS if getattr(recipe, name) != fields[name].get_default()]
        if unsupported:
            raise UserError(f"{', '.join(unsupported)}: not for {self.data.name!r}, whose augmentation is 'shift'")
        if recipe.shift >= self.size:
            raise UserError(f"shift {recipe.shift} must be less than the image size {self.size}")
        steps_per_epoch(self.train_samples(), recipe)

    def train_samples(self) -> int:
        """Return the number of training images."""
        return digits.train_samples(self.data) if isinstance(self.data, DigitsData) else self.data.train

    def train(
        self, model: nn.Module, recipe: ClassificationRecipe, shard: Shard, device: torch.device, seed: int
    ) -> MemoryBatches:
        """Return this worker's part of the training batches."""
        return MemoryBatches(self, recipe, shard, device, seed)

    def evaluation(
        self, model: nn.Module, split: Split, device: torch.device, shard: Shard = WHOLE, limit: int | None = None
    ) -> Iterator[Batch]:
        """Return each image of the split once, or `limit` drawn at random."""
        images, labels = self.tensors(split)
        index = torch.arange(len(labels))
        if limit is not None:
            seed = 0 if isinstance(self.data, FashionData) else self.data.seed
            index = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:limit]
        parts = torch.split(index[shard.rank :: shard.count], EVALUATION_BATCH)
        for part in paced(parts, len(parts), size=EVALUATION_BATCH):
            yield self.normalise(images[part], device), labels[part].to(device)

    def statistics(self, model: nn.Module) -> None:
        """Return nothing: images are normalised by their own statistics, for every network alike."""

    def normalisation(self, model: nn.Module) -> str:
        """Say the training split's mean and deviation."""
        mean, deviation = self._statistics
        return f"from 0 to 255, less {mean:.6g}, divided by {deviation:.6g}"

    def normalise(self, images: Tensor, device: torch.device) -> Tensor:
        """Turn uint8 images into floats of mean 0 and deviation 1 on the device.

        A network takes its layout from its input's. On processors it is channels-last, in which narrow convolutional
        networks train up to 1.5 times as fast; `dms_bench.kernels` keeps them out of the kernel that is wrong there.
        """
        mean, std = self._statistics
        layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        return images.to(device).to(torch.float32, memory_format=layout).sub_(mean).div_(std)

    @cached_property
    def _statistics(self) -> tuple[float, float]:
        pixels = self.tensors("train")[0].float()
        return float(pixels.mean()), float(pixels.std())

    def tensors(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return uint8 images and the labels of a split."""
        if split not in self._splits:
            images, labels = self._arrays(split)
            self._splits[split] = torch.from_numpy(images), torch.from_numpy(labels)
        return self._splits[split]

    def _arrays(self, split: Split) -> Arrays:
        data = self.data
        if isinstance(data, DigitsData):
            return digits.load(data, split, self.size, self.channels)
        if isinstance(data, FashionData):
            return fashion.load(data, split, self.size, self.channels)
        counts: dict[str, int] = {"train": 0, "val": 0, "test": 0, split: getattr(data, split)}
        key = data.model_copy(update=counts).content_hash()
        path = cache_folder() / f"glyphs{glyphs.VERSION}-{key}-{split}-{self.size}x{self.channels}.npz"
        return cached_arrays(path, lambda: glyphs.generate(data, split, self.size, self.channels))


class MemoryBatches:
    """Shuffled batches. All workers draw the same global batches and keep their part of each."""

    def __init__(
        self, source: EmbeddedSource, recipe: ClassificationRecipe, shard: Shard, device: torch.device, seed: int
    ) -> None:
        self.source, self.recipe, self.shard, self.device, self.seed = source, recipe, shard, device, seed
        self._size = micro_batch(recipe, shard)
        self.steps = steps_per_epoch(source.train_samples(), recipe)
        self._erase = _random_erasing(recipe, device)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Return the batches of one epoch; the order depends on the seed and the epoch only."""
        parts = self.recipe.grad_accum_steps
        return paced(self._batches(epoch), self.steps * parts, size=self._size, parts=parts)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        images, labels = self.source.tensors("train")
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        order = torch.randperm(len(labels), generator=generator)
        reach = self.recipe.shift
        for step in range(self.steps):
            batch = order[step * self.recipe.batch_size :][: self.recipe.batch_size]
            offsets = torch.randint(-reach, reach + 1, (len(batch), 2), generator=generator)
            rank_slice = slice(self.shard.rank, None, self.shard.count)
            parts = (torch.split(batch[rank_slice], self._size), torch.split(offsets[rank_slice], self._size))
            for index, offset in zip(*parts, strict=True):
                chosen = translate(images[index], offset) if reach else images[index]
                pixels = self.source.normalise(chosen, self.device)
                yield self._erase(pixels) if self._erase else pixels, labels[index].to(self.device)


def translate(images: Tensor, offsets: Tensor) -> Tensor:
    """Move each image by its own number of (rows, columns), repeating the border."""
    count, _, height, width = images.shape
    rows = (torch.arange(height) - offsets[:, 0, None]).clamp(0, height - 1)
    columns = (torch.arange(width) - offsets[:, 1, None]).clamp(0, width - 1)
    moved = images[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def cache_folder() -> Path:
    """Return the folder of generated data, in the user's cache (`XDG_CACHE_HOME`)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dms_bench"


def cached_arrays(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """Read images and labels from `path`, or make them and write them there.

    Writers need no lock: each writes a file of its own and renames it, and all write the same. What
    cannot be read is made anew; where nothing can be written, nothing is kept.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["images"], stored["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        images, labels = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
            try:
                np.savez(file, images=images, labels=labels)
                file.close()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError:
        pass  # a read-only or full disk costs time, not the run
    return images, labels


def _random_erasing(recipe: ClassificationRecipe, device: torch.device) -> Callable[[Tensor], Tensor] | None:
    if not recipe.reprob:
        return None
    from timm.data.random_erasing import RandomErasing

    erase: Callable[[Tensor], Tensor] = RandomErasing(recipe.reprob, mode=recipe.remode, device=str(device))
    return erase
