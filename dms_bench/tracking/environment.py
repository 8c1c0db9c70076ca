"""Where and from what a result was made: commit, command, versions, hardware."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dms_bench.tracking.secrets import redact, shown

_PACKAGES = ("dms-bench", "torch", "torchvision", "timm", "ultralytics", "transformers", "ray", "mlflow")
_SECRET = re.compile(r"(?i)(token|password|passwd|secret|api[-_]?key|credential)")


def environment() -> dict[str, str]:
    """Describe this process: the package's git commit, where it has one, command line, versions, CPU and GPUs."""
    description = {
        "command": command_line(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "cpu": cpu_name(),
        "cores": str(len(os.sched_getaffinity(0))),
    }
    for package in _PACKAGES:
        try:
            description[package.replace("-", "_")] = version(package)
        except PackageNotFoundError:
            continue
    commit = git_commit(Path(__file__))
    if commit:
        description["git_commit"] = commit
    gpus = _gpu_names()
    if gpus:
        description["gpus"] = ", ".join(gpus)
    return description


def command_line(arguments: Sequence[str]) -> str:
    """Return the command as it would be typed, with tokens and passwords replaced by `***`."""
    words = [Path(arguments[0]).name if arguments else ""]
    mask_next = False
    for word in arguments[1:]:
        name, equals, _ = word.partition("=")
        if mask_next:
            word = "***"
        elif equals and _SECRET.search(name):
            word = f"{name}=***"
        mask_next = not mask_next and not equals and word.startswith("-") and bool(_SECRET.search(name))
        words.append(word)
    return redact(" ".join(map(_typed, words)))


def _typed(word: str) -> str:
    """Return a word as it would be typed, without the secrets of an address that it is, or that an option has in it."""
    option, sign, address = word.partition("=")
    in_option = bool(sign) and re.fullmatch(r"[\w.-]+", option)
    safe = f"{option}={shown(address)}" if in_option else shown(word)
    # The mask needs no quotes of its own.
    return safe if safe != word and shlex.quote(word) == word else shlex.quote(safe)


def git_commit(source: Path) -> str | None:
    """Return the commit (with `-dirty` when edited) of the checkout that `source`, a file or a folder, belongs to.

    None where no repository tracks it. An environment often lies inside of somebody's checkout, whose commit says
    nothing of what is installed there.
    """
    source = source.resolve()
    if not _git(source, "--literal-pathspecs", "ls-files", "--error-unmatch", "--", str(source)):
        return None
    return _git(source, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*") or None


def _git(source: Path, *arguments: str) -> str:
    """Ask git about the repository around a file or folder; empty where there is none."""
    # What git tells its hooks, for example, is of their repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        finished = subprocess.run(
            ["git", *arguments], cwd=source if source.is_dir() else source.parent, env=environment,
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return finished.stdout.strip()


def cpu_name() -> str:
    """Return the processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown CPU"


def _gpu_names() -> list[str]:
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
