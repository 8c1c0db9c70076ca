"""Records by `datasets`, of the hub, a local folder or a file: what of them is text, and which splits share some."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from dms_bench.errors import UserError
from dms_bench_tasks.language.library import expanded, one_line

#: How `datasets` calls the readers of files, by the ends of their names.
_READERS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv"}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
#: What of a message tells its author, in the two ways in which conversations are written.
_AUTHORS = ("role", "from")


def load(name: str, config: str | None, split: str) -> Any:
    """Return a split of a data set.

    Args:
        name: on the hub, or of a local folder or file; a file has the one split `train`.
        config: the data set's configuration.
        split: in the words of `datasets`, such as `train[:90%]`.

    Raises:
        UserError: it cannot be had.
    """
    import datasets

    datasets.disable_progress_bars()
    path = Path(expanded(name))
    options: dict[str, Any] = {}
    if path.is_file():
        options = {"data_files": glob.escape(str(path))}
        if path.suffixes[-2:-1] == [".tsv"] or path.suffix == ".tsv":
            options["sep"] = "\t"
        reader = reader_of(path)
        if reader is None:
            raise UserError(f"data set {name!r}: not a file of records ({', '.join(_READERS)})")
    elif path.is_dir():
        reader = str(path)
    elif name.startswith(("/", "~", ".")):
        raise UserError(f"data set {name!r} does not exist")
    else:
        reader = name
    try:
        return datasets.load_dataset(reader, config, split=split, **options)
    except Exception as error:  # whatever the library's readers, or the hub, say
        advice = ""
        if path.is_file() and not split.startswith("train"):
            advice = (
                "; a file is all 'train': give slices of it, such as 'train[:90%]', 'train[90%:95%]', 'train[95%:]'"
            )
        raise UserError(f"data set {name!r}, split {split!r}: {_reason(error)}{advice}") from error


def reader_of(path: Path) -> str | None:
    """Return what reads a file of records, by its name; None where it is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return _READERS.get(suffixes[-1]) if suffixes else None


def column(name: str, config: str | None, split: str, field: str) -> list[str | None]:
    """Return the text of every record, None for those that have none.

    Raises:
        UserError: the records cannot be had, have no such column, or hold something else in it than text.
    """
    records = load(name, config, split)
    if field not in records.column_names:
        raise UserError(f"data set {name!r} has no column {field!r}, but {', '.join(records.column_names)}")
    require_text(f"data set {name!r}", records, field)
    return list(records[field])


def require_text(what: str, records: Any, field: str) -> None:
    """Raise a UserError where a column holds anything else than text or nothing."""
    kind = getattr(records.features[field], "dtype", None)
    if kind in ("string", "large_string", "string_view", "null"):
        return
    if _holds_messages(records[field]):
        raise UserError(
            f"{what}: column {field!r} holds conversations, not text: write them into a column of text first, as "
            "tokenizer.apply_chat_template(messages, tokenize=False) does"
        )
    shown = kind if isinstance(kind, str) and kind not in ("list", "dict") else "structures"
    texts = [name for name, feature in records.features.items() if getattr(feature, "dtype", None) == "string"]
    others = f"; columns of text: {', '.join(map(repr, texts))}" if texts else ""
    raise UserError(f"{what}: column {field!r} holds {shown}, not text{others}")


def _holds_messages(values: Any) -> bool:
    first = next((value for value in values if value is not None), None)
    message = first[0] if isinstance(first, list) and first else first
    return isinstance(message, dict) and any(author in message for author in _AUTHORS)


def hold_json(text: str) -> bool:
    """Tell whether a text is records in JSON: an object in its first line and its last, or one list of objects."""
    whole = text.strip()
    if whole.startswith("{"):
        lines = whole.splitlines()
        return all(isinstance(_json(line), dict) for line in (lines[0], lines[-1]))
    if whole.startswith("["):
        records = _json(text)
        return isinstance(records, list) and bool(records) and all(isinstance(record, dict) for record in records)
    return False


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def refuse_shared(name: str, config: str | None, splits: Mapping[str, str]) -> None:
    """Refuse splits of one data set that have records in common.

    Args:
        name: of the data set.
        config: its configuration.
        splits: in the words of `datasets`, by what each is for.

    Raises:
        UserError: two of them overlap; it names both, and in how many records.
    """
    sizes = {split: info.num_examples for split, info in _splits_of(load(name, config, next(iter(splits.values()))))}
    for one, other in combinations(splits, 2):
        shared = sum(
            max(0, min(own.to, its.to) - max(own.from_, its.from_))
            for own in _slices(splits[one], sizes)
            for its in _slices(splits[other], sizes)
            if own.splitname == its.splitname
        )
        if shared:
            raise UserError(
                f"data set {name!r}: {one} {splits[one]!r} and {other} {splits[other]!r} have {shared} records in "
                "common; give slices that do not overlap, such as 'train[:90%]' and 'train[90%:]'"
            )


def _splits_of(records: Any) -> Iterator[tuple[str, Any]]:
    yield from (records.info.splits or {}).items()


def _slices(split: str, sizes: Mapping[str, int]) -> list[Any]:
    """Return the parts of a split in absolute numbers of records; none of a split of which the data set knows none."""
    import datasets

    try:
        return list(datasets.ReadInstruction.from_spec(split).to_absolute(sizes))
    except (KeyError, ValueError):  # whoever reads it says what is wrong with it
        return []


def _reason(error: Exception) -> str:
    """Say what a reader met; its own error says only that there was one."""
    return one_line(error.__cause__ if type(error).__name__ == "DatasetGenerationError" and error.__cause__ else error)
