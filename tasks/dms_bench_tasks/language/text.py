"""Where text comes from: Python's standard library, folders of files, data sets of the hub."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from dms_bench.errors import UserError
from dms_bench_tasks.language.library import one_line
from dms_bench_tasks.language.spec import AlpacaData, Corpus, HubData, PystdlibData, TextData

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")

#: Folders of the standard library that hold tests, programs or other people's packages.
_NOT_LIBRARY = {
    *("test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "ensurepip", "site-packages"),
    *("dist-packages", "__pycache__"),
}
#: Characters of a file that are used, so that no single one makes up a split (one has 700k).
_MOST_OF_A_FILE = 40_000
#: Of twenty files, this many go to each split.
_SHARES = {"train": 16, "val": 2, "test": 2}


def documents(data: PystdlibData | TextData | HubData, part: Part) -> list[str]:
    """Return the documents of a split, in an order that is always the same.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    if isinstance(data, PystdlibData):
        return list(_standard_library(part, getattr(data, part)))
    if isinstance(data, TextData):
        return _folder(data, part)
    texts = [
        str(record[data.column]) for record in _records(data.dataset, data.config, getattr(data, part), data.column)
    ]
    if not any(text.strip() for text in texts):
        raise UserError(f"data set {data.dataset!r}: split {getattr(data, part)!r} holds no text")
    return texts


def corpus_text(corpus: Corpus) -> str:
    """Return a text for perplexity as one string, its documents joined.

    A file is joined line by line where the joiner says so: PTB's own files hold a sentence in each line.

    Raises:
        UserError: it cannot be read.
    """
    if corpus.is_file:
        path = Path(corpus.path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"corpus {corpus.name!r}: {path} cannot be read: {one_line(error)}") from error
        return text if corpus.joiner == "\n" else corpus.joiner.join(text.splitlines())
    records = _records(corpus.path, corpus.config, corpus.split or "test", corpus.column)
    return corpus.joiner.join(str(record[corpus.column]) for record in records)


def instructions(data: AlpacaData) -> list[dict[str, str]]:
    """Return all records of an instruction set.

    Raises:
        UserError: it cannot be read, or lacks a field.
    """
    path = Path(data.path)
    source = ("json", {"data_files": str(path)}) if path.is_file() else (data.path, {})
    records = _load(source[0], None, "train", **source[1])
    for field in ("instruction", "output"):
        if field not in records.column_names:
            raise UserError(f"{data.path}: records have no field {field!r}, but {', '.join(records.column_names)}")
    return [{key: str(record.get(key) or "") for key in ("instruction", "input", "output")} for record in records]


@lru_cache(maxsize=1)
def _library_files() -> tuple[tuple[str, Path], ...]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if not _NOT_LIBRARY & set(relative.parts):
            files.append((relative.as_posix(), path))
    # By hash: neighbours of one package do not follow one another, and a limit takes from all of them.
    return tuple(sorted(files, key=lambda pair: _digest(pair[0])))


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _part_of(name: str) -> Part:
    position = _digest("split:" + name) % sum(_SHARES.values())
    for part in PARTS:
        if position < _SHARES[part]:
            return part
        position -= _SHARES[part]
    raise AssertionError(position)


def _standard_library(part: Part, characters: int) -> Iterator[str]:
    left = characters
    for name, path in _library_files():
        if left <= 0:
            return
        if _part_of(name) == part:
            text = path.read_text(encoding="utf-8", errors="ignore")
            text = text[: min(left, _MOST_OF_A_FILE)]
            if text.strip():
                left -= len(text)
                yield text


def _folder(data: TextData, part: Part) -> list[str]:
    root = Path(data.root)
    single, folder = root / f"{part}.txt", root / part
    paths = [single] if single.is_file() else sorted(path for path in folder.glob(data.pattern) if path.is_file())
    if not paths:
        raise UserError(f"data.root {data.root!r}: neither {single.name} nor files {data.pattern!r} in {part}/")
    try:
        return [path.read_text(encoding="utf-8") for path in paths]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.root {data.root!r}: cannot be read: {one_line(error)}") from error


def _records(name: str, config: str | None, split: str, column: str) -> Any:
    records = _load(name, config, split)
    if column not in records.column_names:
        raise UserError(f"data set {name!r} has no column {column!r}, but {', '.join(records.column_names)}")
    return records


def _load(name: str, config: str | None, split: str, **options: Any) -> Any:
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, config, split=split, **options)
    except Exception as error:  # whatever the library's readers, or the hub, say
        raise UserError(f"data set {name!r}, split {split!r}: {one_line(error)}") from error
