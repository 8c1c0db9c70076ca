"""A data YAML of Ultralytics with three splits that do not overlap, whichever data a suite names.

Import after `offline.set_up`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.data.utils import IMG_FORMATS, check_det_dataset
from ultralytics.utils import YAML
from ultralytics.utils.checks import check_yaml

from dms_bench.errors import UserError
from dms_bench_tasks.detection import scenes
from dms_bench_tasks.detection.offline import cache_folder, quiet
from dms_bench_tasks.detection.spec import DetectionTask, GlyphScenes, YoloData

SPLITS = ("train", "val", "test")


class Source:
    """The data of a task.

    Args:
        task: says which.
    """

    def __init__(self, task: DetectionTask) -> None:
        self.task, self.data = task, task.data

    @cached_property
    def path(self) -> Path:
        """The data YAML; made where it has to be.

        Raises:
            UserError: the data are not there, or a split is missing.
        """
        if isinstance(self.data, GlyphScenes):
            try:
                return scenes.make(self.data, self.task.image_size, cache_folder())
            except OSError as error:
                raise UserError(
                    f"glyph-scenes cannot be kept in {cache_folder()}: {error.strerror or error}"
                ) from error
        return _with_three_splits(self.data)

    @cached_property
    def description(self) -> dict[str, Any]:
        """Ultralytics' own reading of the YAML: paths of the splits, names and number of classes."""
        return _read(str(self.path))

    @cached_property
    def names(self) -> dict[int, str]:
        """Names of the classes; the images need not be there."""
        if isinstance(self.data, GlyphScenes):
            return dict(enumerate(scenes.KINDS[: self.data.classes]))
        return _names(self.data.path)

    @property
    def cache(self) -> str | bool:
        """Where decoded images are kept, in Ultralytics' words."""
        if isinstance(self.data, GlyphScenes):
            return "ram"
        return self.data.cache if self.data.cache != "none" else False

    @property
    def workers(self) -> int:
        """Processes that load images."""
        return 0 if isinstance(self.data, GlyphScenes) else self.data.workers

    def check(self) -> None:
        """Make or look at every split, once, so that workers find what Ultralytics keeps about it. Raises UserError."""
        counts = {}
        for split in SPLITS:
            try:
                counts[split] = len(self.plain(split))
            except (FileNotFoundError, RuntimeError, AssertionError) as error:
                raise UserError(f"split {split!r} of {self.path}: {' '.join(str(error).split())[:300]}") from error
        if counts["train"] != self.train_samples():
            raise UserError(f"data {self.data.label()!r}: {counts['train']} training images, not as train_images says")

    def train_samples(self) -> int:
        """Return the number of training images; where the suite gives it, the data need not be there."""
        if isinstance(self.data, GlyphScenes):
            return self.data.train
        if self.data.train_images is None:
            return len(self.plain("train"))
        return self.data.train_images - (_held(self.data, self.data.train_images) if self.data.test == "val" else 0)

    def plain(self, split: str) -> Any:
        """Return a split without augmentation, as Ultralytics' data set."""
        config = get_cfg(overrides={"imgsz": self.task.image_size, "cache": False})
        with quiet():
            return build_yolo_dataset(config, self.description[split], 1, self.description, mode="val")

    def probe(self, images: int, batch: int, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """Yield batches of some training images, always the same, without augmentation.

        Args:
            images: how many, where there are as many.
            batch: images of a batch.
            device: where tensors go; images have values in [0, 1].
        """
        data = self.plain("train")
        chosen = np.random.default_rng(0).permutation(len(data))[:images].tolist()
        for start in range(0, len(chosen), batch):
            part = data.collate_fn([data[index] for index in chosen[start : start + batch]])
            part = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in part.items()}
            part["img"] = part["img"].float() / 255
            yield part


def _read(path: str) -> dict[str, Any]:
    """Let Ultralytics read a data YAML and look for its images; nothing is downloaded.

    Raises:
        UserError: it, or its images, are not there.
    """
    try:
        description: dict[str, Any] = check_det_dataset(path, autodownload=False)
    except (OSError, SyntaxError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()).replace("❌", "").strip()
        raise UserError(f"data {path!r}: {reason[:300] or type(error).__name__}") from error
    return description


def _with_three_splits(data: YoloData) -> Path:
    """Return a YAML in which the splits are those of `data`: its own, or with a part of `train` held out."""
    folder = cache_folder() / f"yolo-{data.content_hash()}"
    path = data.path
    if data.root is not None:
        path = str(folder / "source.yaml")
        _write(folder / "source.yaml", yaml.safe_dump(_content(data.path) | {"path": str(Path(data.root).absolute())}))
    description = _read(path)
    splits: dict[str, Any] = {split: description.get(split) for split in SPLITS}
    if data.test == "test" and not splits["test"]:
        raise UserError(f"data {data.path!r} has no 'test' split; give test: val, which holds out a part of 'train'")
    if data.test == "val":
        images = np.array(_images(splits["train"]))
        order = np.random.default_rng(data.seed).permutation(len(images))
        held = _held(data, len(images))
        if held >= len(images):
            raise UserError(f"data {data.path!r}: {len(images)} training images are too few to hold any out")
        parts = {"val": np.sort(images[order[:held]]), "train": np.sort(images[order[held:]])}
        splits = {"test": splits["val"]} | {split: str(folder / f"{split}.txt") for split in parts}
        for split, names in parts.items():
            _write(folder / f"{split}.txt", "\n".join(names) + "\n")
    content = {**splits, "names": description["names"], "channels": description["channels"]}
    _write(folder / "data.yaml", yaml.safe_dump(content))
    return folder / "data.yaml"


def _held(data: YoloData, images: int) -> int:
    """Return how many of the images are held out for selection."""
    return max(1, round(data.val_fraction * images))


def _content(path: str) -> dict[str, Any]:
    """Return what a data YAML says. Raises UserError."""
    try:
        content: dict[str, Any] = YAML.load(check_yaml(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"data {path!r}: {' '.join(str(error).split())[:300]}") from error
    return content


def _names(path: str) -> dict[int, str]:
    """Return the names of a data YAML's classes. Raises UserError."""
    content = _content(path)
    names = content.get("names") or [f"class_{number}" for number in range(int(content.get("nc") or 0))]
    if not isinstance(names, dict | list) or not names:
        raise UserError(f"data {path!r} has neither 'names' nor 'nc'")
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    return {int(number): str(name) for number, name in pairs}


def _images(sources: str | list[str]) -> list[str]:
    """Return the images of a split: of folders, and of text files that list them."""
    images: list[str] = []
    for source in map(Path, [sources] if isinstance(sources, str) else sources):
        if source.is_dir():
            images += [str(path) for path in source.rglob("*") if path.suffix[1:].lower() in IMG_FORMATS]
        elif source.is_file():
            lines = source.read_text().split()
            images += [str(source.parent / line[2:]) if line.startswith("./") else line for line in lines]
        else:
            raise UserError(f"training images not found: {source}")
    return sorted(images)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_text(text)
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
