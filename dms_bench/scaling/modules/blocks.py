"""Which removable block a name lies in."""

from __future__ import annotations

from collections.abc import Sequence


def block_of(name: str, blocks: Sequence[str]) -> int:
    """Return the index of the block that a module or parameter lies in, or -1."""
    for index, block in enumerate(blocks):
        if name == block or name.startswith(block + "."):
            return index
    return -1
