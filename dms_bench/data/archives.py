"""Files out of wheels and tarballs, read by name: nothing is unpacked to where an archive says."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from dms_bench.errors import UserError


def from_wheel(wheel: Path, ending: str, folder: Path) -> Path:
    """Write the one file of a wheel whose name ends so into a folder. Raises UserError where there is not one."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(ending)]
        if len(names) != 1:
            raise UserError(f"{wheel.name} holds {len(names)} files {ending!r} instead of one")
        path = folder / Path(names[0]).name
        with archive.open(names[0]) as stream, path.open("wb") as file:
            while part := stream.read(1 << 20):
                file.write(part)
    return path


def from_tarball(tarball: Path) -> dict[str, bytes]:
    """Return the files of a gzipped tarball by their own names, without folders."""
    found = {}
    with tarfile.open(tarball, "r:gz") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is not None:
                found[Path(member.name).name] = stream.read()
    return found
