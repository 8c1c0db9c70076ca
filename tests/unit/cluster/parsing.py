"""Command lines of deployment files, parsed by the command lines that they are for."""

import re
import shlex
from pathlib import Path

import click
from typer.main import get_command

from dms_bench.cli import app

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster"


def commands(text: str, program: str) -> list[list[str]]:
    """The words of each call of `program` in a shell script, without what shells do with the rest of the line."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = re.findall(rf"(?:^|[\s;/`]){re.escape(program)} ([a-z][^;`#|&\n]*)", joined)
    return [shlex.split(call) for call in found]


def parse(program: str, words: list[str]) -> dict[str, object]:
    """Parse a call as `program` itself would, without running it; returns its options by name."""
    if program == "dms-bench":
        command = get_command(app)
    elif program == "mlflow":
        from mlflow.cli import cli as command
    else:
        from ray.scripts.scripts import cli as command
    context = click.Context(command) if isinstance(command, click.Command) else None
    inner = command.get_command(context or command.make_context(program, [words[0]]), words[0])
    assert inner is not None, f"{program} has no command {words[0]!r}"
    return dict(inner.make_context(words[0], list(words[1:])).params)
