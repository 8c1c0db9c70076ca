"""From a package to a folder that suites name: all of it, or nothing."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from dms_bench.data.download import checked, download
from dms_bench.data.source import Source
from dms_bench.errors import UserError


def get(source: Source, parent: Path, package: Path | None = None) -> Path:
    """Make the folder of a source, which is not there yet, and return it.

    Everything is made beside it and moved in the end, so that whatever fails leaves nothing behind.

    Args:
        source: what to get.
        parent: folder of real data, in which its own folder is made.
        package: the package's file, where it is here already (then nothing is downloaded), or a folder with what is in
            it.

    Raises:
        UserError: it cannot be downloaded, is not what was expected, or the folder cannot be written.
    """
    missing = [name for name in source.needs if find_spec(name) is None]
    if missing:
        raise UserError(f"{source.name} needs {', '.join(missing)}: pip install 'dms-bench[{source.extra}]'")
    if package is not None and not package.exists():
        raise UserError(f"--package {package} does not exist")
    target = source.folder(parent)
    if target.exists() and not (target.is_dir() and _only_its_own(source, target)):
        raise UserError(f"{target} holds something else: remove it, or give another folder with --to")
    new = not parent.exists()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{source.name}-", dir=parent) as work:
            made = _made(source, Path(work), package)
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
    except OSError as error:
        raise UserError(f"{source.name}: {error.filename or target}: {error.strerror or error}") from error
    finally:
        if new and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
    return target


def _made(source: Source, work: Path, package: Path | None) -> Path:
    """Make the files of a source in a new folder below `work`."""
    came, made = work / "package", work / "made"
    came.mkdir()
    made.mkdir()
    if package is None:
        package = download(source, came)
    elif package.is_file():
        package = checked(source, package)
    maker: Callable[[Path, Path], None] = _named(source.maker)
    try:
        maker(package, made)
    except (UserError, OSError):
        raise
    except Exception as error:  # of a library, on a file that it does not understand
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{source.name}: {package.name} cannot be converted: {reason}") from error
    for path in made.iterdir():  # some libraries write for their user alone
        path.chmod(0o644)
    return made


def _only_its_own(source: Source, folder: Path) -> bool:
    """Whether a folder holds nothing but what would be made: what is left of it is made again."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")} <= set(source.files)


def _named(place: str) -> Callable[[Path, Path], None]:
    module, _, function = place.partition(":")
    maker: Callable[[Path, Path], None] = getattr(importlib.import_module(module), function)
    return maker
