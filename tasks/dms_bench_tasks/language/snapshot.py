"""The files of a pretrained network, in a folder or in the hub's snapshot of it."""

from __future__ import annotations

from pathlib import Path

from dms_bench.errors import UserError
from dms_bench_tasks.language import library

#: Files with weights, by transformers' names for one or several; the first kind that is there is the one it loads.
_PATTERNS = ("model*.safetensors", "pytorch_model*.bin")


def weight_files(name: str, revision: str | None) -> list[Path]:
    """Return the files with the weights of a network, in the order of their names.

    Args:
        name: a folder, or a name on the hub, which is asked (`HF_HUB_OFFLINE=0`) for what is not here yet.
        revision: a branch, tag or commit of the hub's.

    Raises:
        UserError: there are none, or the hub does not give them.
    """
    library.prepare()
    from huggingface_hub import snapshot_download

    for pattern in _PATTERNS:
        folder = Path(library.expanded(name))
        if not folder.is_dir():
            try:
                folder = Path(snapshot_download(name, revision=revision, allow_patterns=pattern))
            except Exception as error:  # the hub, or the cache, in its own words
                raise UserError(f"supernet.model {name!r}: {library.one_line(error)}") from error
        files = sorted(folder.glob(pattern))
        if files:
            return files
    raise UserError(f"supernet.model {name!r} has no weights that transformers would load")
