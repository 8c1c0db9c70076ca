"""Where text comes from: Python's standard library, folders of files, records."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeGuard

from dms_bench.data import advice
from dms_bench.errors import UserError
from dms_bench_tasks.language import records
from dms_bench_tasks.language.library import expanded
from dms_bench_tasks.language.spec import AlpacaData, Corpus, HubData, LanguageTask, PystdlibData, TextData

PlainData = PystdlibData | TextData | HubData
Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")

#: Folders of the standard library that hold tests, programs or other people's packages.
_NOT_LIBRARY = {
    *("test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "ensurepip", "site-packages"),
    *("dist-packages", "__pycache__"),
}
#: Characters of a file that are used, so that no single one makes up a split (one has 700k).
_MOST_OF_A_FILE = 40_000
#: Characters of a piece of a text, where a split is less than the whole of its files.
_PIECE = 4_000
#: Of twenty files, this many go to each split.
_SHARES = {"train": 16, "val": 2, "test": 2}
#: Where the splits of a single file begin and end, as shares of it.
_STRETCHES = {"train": (0.0, 0.8), "val": (0.8, 0.9), "test": (0.9, 1.0)}


def documents(data: PlainData, part: Part) -> list[str]:
    """Return the documents of a split, but for those with nothing in them, in an order that is always the same.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    found = [text for text in _texts(data, part) if _says_something(text)]
    if not found:
        raise UserError(f"{_named(data)}: the {part} split holds no text")
    return found


def empty_documents(data: PlainData, part: Part) -> tuple[int, int]:
    """Return how many documents of a split are left out as they are null or blank, and how many there are in all."""
    texts = _texts(data, part)
    return sum(not _says_something(text) for text in texts), len(texts)


def running_text(data: PlainData, part: Part) -> str:
    """Return a split as one string to measure perplexity on. Blank documents are in it, as in LLM-Pruner's protocol."""
    return "\n\n".join(text for text in _texts(data, part) if text is not None)


def corpus_text(corpus: Corpus) -> str:
    """Return a text for perplexity as one string, its documents joined; those that are null are left out.

    A file is joined line by line where the joiner says so: PTB's own files hold a sentence in each line.

    Raises:
        UserError: it cannot be read.
    """
    if corpus.is_file and records.reader_of(Path(corpus.path)) is None:
        what, path = f"corpus {corpus.name!r}", Path(expanded(corpus.path))
        text = read(path, what)
        if records.hold_json(text):
            raise UserError(f"{what}: {path} holds records in JSON, not text: name it .json or .jsonl, and its column")
        return text if corpus.joiner == "\n" else corpus.joiner.join(text.splitlines())
    return corpus.joiner.join(text for text in _corpus_records(corpus) if text is not None)


def null_records(corpus: Corpus) -> tuple[int, int]:
    """Return how many records of a text for perplexity are null, and how many there are in all; of a file none."""
    if corpus.is_file and records.reader_of(Path(corpus.path)) is None:
        return 0, 0
    texts = _corpus_records(corpus)
    return sum(text is None for text in texts), len(texts)


def check_splits(task: LanguageTask) -> None:
    """Refuse training records that are also validated or measured on, by their places in one data set.

    Raises:
        UserError: splits of the data overlap, or its training split and a text of the final measure.
    """
    data = task.data
    if not isinstance(data, HubData):
        return
    splits: dict[str, str] = {part: getattr(data, part) for part in PARTS}
    records.refuse_shared(data.dataset, data.config, splits)
    for corpus in task.corpora:
        if (expanded(corpus.path), corpus.config) == (expanded(data.dataset), data.config):
            both = {"train": data.train, f"corpus {corpus.name!r}": _split_of(corpus)}
            records.refuse_shared(data.dataset, data.config, both)


def instructions(data: AlpacaData) -> list[dict[str, str]]:
    """Return all records of an instruction set; a field that is null or not there is empty.

    Raises:
        UserError: it cannot be read, lacks a field, or holds anything else than text.
    """
    found = records.load(data.path, None, "train")
    for field in ("instruction", "output"):
        if field not in found.column_names:
            raise UserError(f"{data.path}: records have no field {field!r}, but {', '.join(found.column_names)}")
    fields = [field for field in ("instruction", "input", "output") if field in found.column_names]
    for field in fields:
        records.require_text(data.path, found, field)
    return [{"input": ""} | {field: record[field] or "" for field in fields} for record in found]


def read(path: Path, what: str) -> str:
    """Return a text file's content, line ends and all as Python has them, without a mark of its encoding.

    Raises:
        UserError: it is not there, or not text in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{what}: {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        place = f"byte 0x{error.object[error.start]:02x} at position {error.start}"
        raise UserError(f"{what}: {path} is not text in UTF-8 ({place}): save it as UTF-8") from error
    if "\0" in text:  # as UTF-16 without its mark has beside every letter
        raise UserError(f"{what}: {path} is not text in UTF-8 (it holds zero bytes): save it as UTF-8")
    return text


def _says_something(text: str | None) -> TypeGuard[str]:
    return text is not None and bool(text.strip())


def _named(data: PlainData) -> str:
    if isinstance(data, TextData):
        return f"data.root {data.root!r}"
    return f"data set {data.dataset!r}" if isinstance(data, HubData) else data.label()


def _texts(data: PlainData, part: Part) -> list[str | None]:
    """Return the documents of a split as they come; None for a record that is null."""
    if isinstance(data, PystdlibData):
        return list(_standard_library(part, getattr(data, part)))
    if isinstance(data, TextData):
        return list(_folder(data, part))
    return records.column(data.dataset, data.config, getattr(data, part), data.column)


def _corpus_records(corpus: Corpus) -> list[str | None]:
    try:
        return records.column(corpus.path, corpus.config, _split_of(corpus), corpus.column)
    except UserError as error:
        raise UserError(f"corpus {corpus.name!r}: {error}") from error


def _split_of(corpus: Corpus) -> str:
    """Return the split of a data set that is measured; a file of records has only one."""
    return corpus.split or ("train" if corpus.is_file else "test")


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
    root = Path(expanded(data.root))
    if root.is_file():
        if records.reader_of(root):
            raise UserError(f"data.root {data.root!r} is a file of records; these are read by `name: hub`")
        return _limited([_stretch(_document(root, data), part)], data, part)
    single, folder = root / f"{part}.txt", root / part
    paths = [single] if single.is_file() else sorted(path for path in folder.glob(data.pattern) if path.is_file())
    if not paths:
        missing = f"data.root {data.root!r}: neither {single.name} nor files {data.pattern!r} in {part}/"
        raise UserError(missing + advice(data.root))
    return _limited([_document(path, data) for path in paths], data, part)


def _document(path: Path, data: TextData) -> str:
    """Return what a file holds. Raises UserError where that is no text."""
    text = read(path, f"data.root {data.root!r}")
    if records.hold_json(text):
        raise UserError(
            f"data.root {data.root!r}: {path} holds records in JSON, not text: give `name: hub`, `dataset` and the "
            "`column` of the text"
        )
    return text


def _stretch(text: str, part: Part) -> str:
    """Return a split of a single text, which shares nothing with the others: of whole lines, where there are lines."""
    begin, end = (_border(text, round(share * len(text))) for share in _STRETCHES[part])
    return text[begin:end]


def _border(text: str, place: int) -> int:
    """Return where a split begins near a place in a text: behind a line's end, else behind a word, else just there."""
    if place < len(text):
        for separator in ("\n", " "):
            found = text.rfind(separator, max(0, place - len(text) // 20), place)
            if found >= 0:
                return found + 1
    return place


def _limited(texts: list[str], data: TextData, part: Part) -> list[str]:
    limit: int | None = getattr(data, part)
    return texts if limit is None else list(_excerpts(texts, limit))


def _excerpts(texts: Sequence[str], characters: int) -> Iterator[str]:
    """Yield about so many characters in pieces: the same share of every text, from starts of lines all over it.

    Args:
        texts: the documents.
        characters: of all pieces together; where there are fewer, the documents come as they are.
    """
    share = characters / max(1, sum(map(len, texts)))
    if share >= 1:
        yield from texts
        return
    for text in texts:
        pieces = max(1, round(share * len(text) / _PIECE))
        for number in range(pieces):
            start = number * len(text) // pieces
            if number:
                start = text.find("\n", start, start + _PIECE) + 1 or start
            yield text[start : start + round(share * len(text) / pieces)]
