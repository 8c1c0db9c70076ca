"""A folder of pictures as somebody has it: its splits, classes and sizes, in the words of a suite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image
from timm.data.readers.img_extensions import get_img_extensions
from timm.data.readers.reader_image_folder import find_images_and_targets

from dms_bench.errors import UserError

#: What sub-folders of the splits are called.
_TRAIN, _VAL, _TEST = ("train", "training"), ("val", "valid", "validation", "eval", "evaluation", "dev"), ("test",)
#: Pictures whose size is looked at, evenly spread.
_LOOKED_AT = 200


@dataclass(frozen=True)
class Folder:
    """What a folder of pictures holds."""

    #: Of a suite's data: `train`, `val` and `test` by the names of their sub-folders, or null.
    splits: dict[str, str | None]
    #: Names of the classes.
    classes: tuple[str, ...]
    #: Pictures of `train`, held-out ones included.
    images: int
    #: Pictures of all splits.
    all_images: int
    #: Median of the pictures' shorter sides, in pixels.
    side: int
    #: Whether all pictures that were looked at are grey.
    grey: bool
    #: What is not used, or otherwise than its name says, and why; empty where there is no such thing.
    unused: str = ""


def look_at(root: Path, named: str) -> Folder:
    """Return what a folder of pictures holds.

    Args:
        root: the folder.
        named: as the user wrote it, for messages.

    Raises:
        UserError: it is not there, or has no pictures, no classes, or only one.
    """
    what = f"data folder {named!r}"
    if not root.is_dir():
        raise UserError(f"{what} does not exist")
    train, val, test = (_one_of(root, names) for names in (_TRAIN, _VAL, _TEST))
    unused = []
    pictures = {name: _pictures(root / name) for name in (train or ".", val, test) if name}
    if train and test and len(_classes(pictures[test])) < 2 <= len(_classes(pictures[train])):
        # Of a competition, unlabelled, or of one class.
        held = "a single class" if _classes(pictures[test]) else "no sub-folders of classes"
        unused.append(f"{test} has {held}, and is not used")
        test = None
    if train and test is None and val is not None:
        unused.append(f"{val} is the test")
        test, val = val, None  # what is published for validation is measured once, at the end
    labelled = pictures[train or "."]
    unread = _unread(root / (train or "."), _classes(labelled))
    _check(f"{what}{f', sub-folder {train!r}' if train else ''}", labelled, unread)
    unused += unread
    chosen = list(labelled)[:: max(1, len(labelled) // _LOOKED_AT)]
    sides, modes = _looked_at(chosen)
    if not sides:
        raise UserError(f"{what}: none of its pictures can be read")
    return Folder(
        {"train": train or ".", "val": val if train else None, "test": test if train else None},
        tuple(sorted(_classes(labelled))),
        len(labelled),
        sum(len(found) for name, found in pictures.items() if name in (train or ".", val, test)),
        int(median(sides)),
        modes <= {"L", "1", "I;16"},
        "; ".join(unused),
    )


def _unread(folder: Path, classes: set[str]) -> list[str]:
    """Return in words which sub-folders hold no picture that can be read, and what they hold."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir() or path.is_symlink()):
        if path.name in classes or path.name.startswith("."):
            continue
        inside = sorted({file.suffix or file.name for file in path.rglob("*") if file.is_file()})[:3]
        held = f"holds {', '.join(inside)}, none of which is read" if inside else "is empty"
        found.append(f"sub-folder {path.name} {held if path.exists() else 'is a link that leads nowhere'}")
    return found


def _one_of(root: Path, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if (root / name).is_dir()), None)


def _pictures(folder: Path) -> dict[str, str]:
    """Return the class of every picture by its path, as timm reads the folder."""
    found: Any = find_images_and_targets(str(folder))
    samples, numbers = found
    names = {number: name for name, number in numbers.items()}
    return {path: names[number] for path, number in samples}


def _classes(pictures: dict[str, str]) -> set[str]:
    return set(pictures.values()) - {""}


def _check(what: str, pictures: dict[str, str], unread: list[str]) -> None:
    """Raise UserError where there is nothing to tell apart."""
    endings = ", ".join(get_img_extensions())
    if not pictures:
        raise UserError(f"{what} holds no pictures ({endings}) in sub-folders of classes")
    classes = _classes(pictures)
    if "" in pictures.values():
        direct = sum(name == "" for name in pictures.values())
        raise UserError(
            f"{what}: {direct} pictures lie in no class: put those of each class into a sub-folder of its own, such as "
            "cats/ and dogs/"
        )
    if {name.lower() for name in classes} <= {*_TRAIN, *_VAL, *_TEST, "images", "labels"}:
        raise UserError(
            f"{what}: its pictures lie in {', '.join(sorted(classes))}, which are no classes: put those of each class "
            "into a sub-folder of its own (for objects with boxes, give the data YAML)"
        )
    hidden = [name for name in classes if name.startswith(".")]
    if hidden:
        raise UserError(f"{what}: {min(hidden)!r} is a hidden folder with pictures, and no class: move or rename it")
    if len(classes) < 2:
        others = "".join(f", {text}" for text in unread)
        raise UserError(
            f"{what} has a single class, {min(classes)!r}{others}: put the pictures of each class into a sub-folder of "
            "its own (for objects with boxes, give the data YAML)"
        )


def _looked_at(paths: list[str]) -> tuple[list[int], set[str]]:
    """Return the shorter sides of pictures in pixels, and Pillow's names of what they hold."""
    sides, modes = [], set()
    for path in paths:
        try:
            with Image.open(path) as image:
                sides.append(min(image.size))
                modes.add(image.mode)
        except Exception:  # decoders raise whatever they meet; `pictures.looked_at` counts such pictures
            continue
    return sides, modes
