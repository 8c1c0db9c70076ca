"""A data YAML of Ultralytics with three splits that do not overlap, whichever data a suite names.

Import after `offline.set_up`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.data import YOLODataset
from ultralytics.data.utils import IMG_FORMATS, check_det_dataset, img2label_paths, verify_image_label
from ultralytics.utils import YAML
from ultralytics.utils.checks import check_yaml

from dms_bench.errors import UserError
from dms_bench.pace import paced
from dms_bench_tasks.common import left_out
from dms_bench_tasks.common.left_out import LeftOut
from dms_bench_tasks.detection import scenes
from dms_bench_tasks.detection.offline import cache_folder, quiet
from dms_bench_tasks.detection.spec import DetectionTask, GlyphScenes, YoloData

SPLITS = ("train", "val", "test")
#: More classes than any data set has.
_MOST_CLASSES = 100_000
#: Pillow's name of what a picture holds, where Ultralytics cannot make 8 bits of it.
_UNREADABLE = {"F": "numbers with a fraction", "I": "integers of 32 bits"}


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
        return _names(os.path.expanduser(self.data.path))

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
        """Make or look at every split, once, so that workers find what Ultralytics keeps about it.

        What Ultralytics leaves out is said.

        Raises:
            UserError: a split is missing, or there is nothing to be learnt or measured in it.
        """
        looked_at = self._look()
        train = len(looked_at["train"].listed)
        if isinstance(self.data, YoloData) and self.data.train_images is not None and train != self.train_samples():
            raise UserError(f"data {self.data.label()!r}: {train} training images, not as train_images says")
        _check_apart(self.data, looked_at)
        left_out.say(self.data.label(), self._left_out(looked_at))

    def left_out(self) -> dict[str, LeftOut]:
        """Return what is not used of each split: damaged pictures, those whose labels are wrong, odd lines of lists."""
        return self._left_out(self._look()) if isinstance(self.data, YoloData) else {}

    def _look(self) -> dict[str, Split]:
        """Have Ultralytics look at every split. Raises UserError."""
        found = {}
        for split in SPLITS:
            try:
                found[split] = self.plain(split)
            except (FileNotFoundError, RuntimeError, AssertionError, ValueError) as error:
                where = self.data.path if isinstance(self.data, YoloData) else self.path
                raise UserError(f"split {split!r} of {where}: {' '.join(str(error).split())[:300]}") from error
            found[split].check(f"split {split!r} of data {self.data.label()!r}")
        return found

    def _left_out(self, splits: dict[str, Split]) -> dict[str, LeftOut]:
        lost = {split: pictures.left_out() for split, pictures in splits.items()}
        for split, lines in self._odd_lines.items():
            example = f"the line {lines[0]!r} names no picture" if lines else ""
            lost[split] += LeftOut(len(lines), len(lines), example)
        return lost

    @cached_property
    def _odd_lines(self) -> dict[str, list[str]]:
        """Lines of the lists of images in the YAML that Ultralytics takes for none, by split."""
        if isinstance(self.data, GlyphScenes):
            return {}
        given = _read(str(_source(self.data)))
        renamed = (
            {"train": "train", "test": "val"} if self.data.test == "val" else dict(zip(SPLITS, SPLITS, strict=True))
        )
        return {split: _odd_lines(given[name]) for split, name in renamed.items()}

    def train_samples(self) -> int:
        """Return the number of training images; where the suite gives it, the data need not be there."""
        if isinstance(self.data, GlyphScenes):
            return self.data.train
        if self.data.train_images is None:
            return len(self.plain("train"))
        return self.data.train_images - (_held(self.data, self.data.train_images) if self.data.test == "val" else 0)

    def plain(self, split: str) -> Split:
        """Return a split without augmentation, as Ultralytics' data set."""
        config = get_cfg(overrides={"imgsz": self.task.image_size, "cache": False})
        with quiet():
            return Split(
                self.description[split], self.task.image_size, augment=False, hyp=config, data=self.description
            )

    def probe(self, images: int, batch: int, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """Yield batches of some training images, always the same, without augmentation.

        Args:
            images: how many, where there are as many.
            batch: images of a batch.
            device: where tensors go; images have values in [0, 1].
        """
        data = self.plain("train")
        chosen = np.random.default_rng(0).permutation(len(data))[:images].tolist()
        starts = range(0, len(chosen), batch)
        for start in paced(starts, len(starts), size=batch):
            part = data.collate_fn([data[index] for index in chosen[start : start + batch]])
            part = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in part.items()}
            part["img"] = part["img"].float() / 255
            yield part


class Split(YOLODataset):  # type: ignore[misc]
    """A split that remembers all of its images, those that Ultralytics leaves out too."""

    def get_img_files(self, img_path: str | list[str]) -> list[str]:
        """Return the images that are there."""
        listed: list[str] = super().get_img_files(img_path)
        self.listed = listed
        return listed

    def check(self, named: str) -> None:
        """Raise UserError where nothing can be learnt from the images, or some cannot be converted.

        Args:
            named: the split, as the message names it.
        """
        if not any(len(label["cls"]) for label in self.labels):
            there = [path for path in self.label_files if Path(path).is_file()]
            why = "their label files are empty" if there else f"there is no label file such as {self.label_files[0]!r}"
            raise UserError(f"{named}: none of its {len(self.listed)} images has an object: {why}")
        for path in self.im_files:
            if path.lower().endswith((".tif", ".tiff")):  # no other kind of file holds such numbers
                with Image.open(path) as image:
                    if image.mode in _UNREADABLE:
                        raise UserError(
                            f"{named}: {path!r} holds {_UNREADABLE[image.mode]}, which Ultralytics does not read: "
                            "store its images with 8 or 16 bits"
                        )

    def left_out(self) -> LeftOut:
        """Return what Ultralytics leaves out, and why it does so with the first."""
        used = set(self.im_files)
        lost = [path for path in self.listed if path not in used]
        example = ""
        if lost:
            labels = img2label_paths(lost[:1])[0]
            message = verify_image_label((lost[0], labels, "", False, len(self.data["names"]), 0, 0, False))[-1]
            example = " ".join(str(message).replace(": ignoring corrupt image/label", "").split())[:300]
        return LeftOut(len(lost), len(self.listed), example)


def _check_apart(data: YoloData | GlyphScenes, splits: dict[str, Split]) -> None:
    """Refuse splits that share pictures, on which a measure says nothing of new ones. Raises UserError."""
    called = {"test": data.test} if isinstance(data, YoloData) else {}
    for one, other in combinations(splits, 2):
        if shared := set(splits[one].listed) & set(splits[other].listed):
            raise UserError(
                f"data {data.label()!r}: {len(shared)} of {len(splits[other].listed)} pictures of "
                f"{called.get(other, other)!r} are also in {one!r}: give each split pictures of its own"
            )


def _read(path: str) -> dict[str, Any]:
    """Let Ultralytics read a data YAML and look for its images; nothing is downloaded.

    Raises:
        UserError: it, or its images, are not there.
    """
    classes = _number_of_classes(path)
    if not 1 <= classes <= _MOST_CLASSES:
        raise UserError(f"data {path!r}: nc: {classes} is no number of classes (1 to {_MOST_CLASSES})")
    try:
        description: dict[str, Any] = check_det_dataset(path, autodownload=False)
    except Exception as error:  # whatever Ultralytics' code meets in what somebody wrote by hand
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)  # a KeyError quotes its own
        reason = " ".join(text.split()).replace("❌", "").strip()
        raise UserError(f"data {path!r}: {reason[:300] or type(error).__name__}") from error
    if description["channels"] != 3:
        raise UserError(
            f"data {path!r}: channels: {description['channels']}: networks are searched on images of 3 channels; "
            "without 'channels' Ultralytics reads grey images as colour, and the first 3 channels of more"
        )
    return description


def _number_of_classes(path: str) -> int:
    """Return `nc`, of which Ultralytics makes as many names; 1 where it is not given, or not to be read."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
        return int(content.get("nc", 1))
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        return 1  # said by Ultralytics


def described(path: str) -> dict[str, Any]:
    """Return Ultralytics' own reading of a data YAML, `~` in its path being the home folder. Raises UserError."""
    return _read(os.path.expanduser(path))


def _with_three_splits(data: YoloData) -> Path:
    """Return a YAML in which the splits are those of `data`: its own, or with a part of `train` held out."""
    folder = _folder(data)
    description = _read(_source(data))
    splits: dict[str, Any] = {split: description.get(split) for split in SPLITS}
    if data.test == "test" and not splits["test"]:
        raise UserError(f"data {data.path!r} has no 'test' split; give test: val, which holds out a part of 'train'")
    if data.test == "val":
        images = np.array(images_of(splits["train"]))
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


def _folder(data: YoloData) -> Path:
    """Return where the YAML of three splits is kept."""
    return cache_folder() / f"yolo-{data.content_hash()}"


def _source(data: YoloData) -> str:
    """Return the path of the YAML that is given, or of a copy that names the folder that is."""
    given = os.path.expanduser(data.path)
    if data.root is None:
        return given
    path = _folder(data) / "source.yaml"
    _write(path, yaml.safe_dump(_content(given) | {"path": str(Path(data.root).expanduser().absolute())}))
    return str(path)


def _held(data: YoloData, images: int) -> int:
    """Return how many of the images are held out for selection."""
    return max(1, round(data.val_fraction * images))


def _content(path: str) -> dict[str, Any]:
    """Return what a data YAML says. Raises UserError."""
    try:
        content: dict[str, Any] = YAML.load(check_yaml(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"data {path!r}: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(content, dict):
        raise UserError(f"data {path!r} is no data YAML: it holds no fields")
    return content


def _names(path: str) -> dict[int, str]:
    """Return the names of a data YAML's classes. Raises UserError."""
    content = _content(path)
    try:
        names = content.get("names") or [f"class_{number}" for number in range(int(content.get("nc") or 0))]
        if not isinstance(names, dict | list) or not names:
            raise UserError(f"data {path!r} has neither 'names' nor 'nc'")
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in pairs}
    except (TypeError, ValueError):
        raise UserError(
            f"data {path!r}: 'names' is a list, or numbers from 0 with a name each; 'nc' a number"
        ) from None


def images_of(sources: str | list[str]) -> list[str]:
    """Return the images of a split as Ultralytics reads folders and lists: links followed, blanks kept.

    Raises:
        UserError: there are none.
    """
    reader = SimpleNamespace(prefix="", fraction=1.0)
    try:
        images: list[str] = YOLODataset.get_img_files(reader, sources)
    except FileNotFoundError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise UserError(f"training images {sources!r}: {reason}") from error
    return images


def _odd_lines(sources: str | list[str]) -> list[str]:
    """Return the lines of lists of images that name no image; Ultralytics passes over them."""
    lists = [path for path in map(Path, [sources] if isinstance(sources, str) else sources) if path.is_file()]
    lines = [line for path in lists for line in path.read_text(encoding="utf-8-sig").strip().splitlines()]
    return [line for line in lines if line.strip() and line.rpartition(".")[-1].lower() not in IMG_FORMATS]


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_text(text)
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
