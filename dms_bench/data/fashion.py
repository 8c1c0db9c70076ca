"""Fashion-MNIST's four files (Xiao et al. 2017), out of Debian's package or from a folder that has them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from dms_bench.errors import UserError

#: The files, and SHA-256 of each.
FILES = {
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
}
#: What a licence may be called; where a folder has the four files alone, this stands in its place.
_LICENCES = ("LICENSE", "copyright")
_SHORT_LICENCE = b"Fashion-MNIST, Copyright (c) 2017 Zalando SE, under the MIT licence.\n"


def make(package: Path, folder: Path) -> None:
    """Write the four files and their licence.

    Args:
        package: Debian's package, or a folder with the files.
        folder: where to write.

    Raises:
        UserError: a file is missing, or not the original.
    """
    if package.is_dir():
        _take(package, folder)
        return
    if shutil.which("dpkg-deb") is None:
        raise UserError("fashion_mnist: dpkg-deb, which unpacks its package, is not installed")
    with tempfile.TemporaryDirectory(dir=folder.parent) as unpacked:
        run = subprocess.run(["dpkg-deb", "--extract", package, unpacked], capture_output=True, text=True)
        if run.returncode:
            raise UserError(f"fashion_mnist: {package.name} cannot be unpacked: {run.stderr.strip()[:300]}")
        _take(Path(unpacked), folder)


def _take(found: Path, folder: Path) -> None:
    for name, sha256 in FILES.items():
        path = next(found.rglob(name), None)
        if path is None:
            raise UserError(f"fashion_mnist: {found} has no {name}")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise UserError(f"fashion_mnist: {path} is not the original's: its sha256 differs")
        (folder / name).write_bytes(content)
    licence = next((path for name in _LICENCES for path in found.rglob(name)), None)
    (folder / "LICENSE").write_bytes(licence.read_bytes() if licence else _SHORT_LICENCE)
