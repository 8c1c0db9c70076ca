"""Digests of what lies on this machine and a trial names by its path: another content makes another trial.

Files of at most 64 MB are read whole. Of a larger one the size counts, and 64 samples of 1 MB at equal distances, the
first and last megabyte among them. Of a folder all files count, with their names; where there are more than 10,000,
the names and sizes of all, and the content of 10,000 at equal distances in the order of their names. What is hidden
(`.git`) does not count.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

#: Bytes of a file that is read whole.
WHOLE = 64 * 2**20
#: How many samples a larger one is read in, and bytes of a sample.
SAMPLES, SAMPLE = 64, 2**20
#: Files of a folder that are read.
FILES = 10_000
_LENGTH = 12


@cache
def digest_of_path(path: str, endings: tuple[str, ...] = ("",)) -> str | None:
    """Return a digest of a file, or of a folder's files; each is read once, until `forget` is called.

    Args:
        path: of a file or folder; `~` is the home folder.
        endings: of the names of a folder's files that count.

    Returns:
        Twelve hexadecimal digits. None where there is nothing, or what cannot be read, which who needs it reports.
    """
    place = Path(os.path.expanduser(path))
    try:
        if place.is_file():
            return _file(place).hexdigest()[:_LENGTH]
        return _folder(place, endings).hexdigest()[:_LENGTH] if place.is_dir() else None
    except (OSError, ValueError):  # the second of what can be no path
        return None


def digest_of_text(text: str) -> str:
    """Return a digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def forget() -> None:
    """Read files anew."""
    digest_of_path.cache_clear()


def _file(path: Path) -> hashlib._Hash:
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}\0".encode())
    with path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
        else:
            for number in range(SAMPLES):
                file.seek((size - SAMPLE) * number // (SAMPLES - 1))
                digest.update(file.read(SAMPLE))
    return digest


def _folder(folder: Path, endings: tuple[str, ...]) -> hashlib._Hash:
    files = sorted(_files(folder, endings))
    read = {files[len(files) * number // FILES] for number in range(FILES)} if len(files) > FILES else set(files)
    digest = hashlib.sha256()
    for name in files:
        path = folder / name
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        if name in read:
            digest.update(_file(path).digest())
    return digest


def _files(folder: Path, endings: tuple[str, ...]) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.endswith(endings) and not name.startswith("."):
                yield Path(parent, name).relative_to(folder).as_posix()
