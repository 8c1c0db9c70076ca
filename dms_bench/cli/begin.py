"""The command that begins where a user does: with a network and data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dms_bench.cli.output import write
from dms_bench.config.proposal import Brought
from dms_bench.errors import UserError

if TYPE_CHECKING:
    from dms_bench.trial.begin import Begun


def new(
    model: Annotated[
        str,
        typer.Option(
            help="A model of timm, a YAML of Ultralytics or a .pt file that it trained, a folder or type of "
            "transformers; what a suite's `supernet.model` may be.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="A folder with a sub-folder of pictures for each class, a data YAML of Ultralytics, a text file or "
            "folder, a file of records, or the name of an embedded set.",
            show_default=False,
        ),
    ],
    macs: Annotated[
        str | None, typer.Option(help="Multiply-accumulates: `50%` of the network's, or `450M`.", show_default=False)
    ] = None,
    params: Annotated[str | None, typer.Option(help="Parameters: `50%`, or `5M`.", show_default=False)] = None,
    latency: Annotated[
        str | None, typer.Option(help="Time of a forward pass here: `60%`, or `3ms`.", show_default=False)
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="A file with weights to start from.", show_default=False)
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from the library's own weights (needs a network, or its cache).")
    ] = False,
    task: Annotated[str | None, typer.Option(help="The task, where the data do not tell.", show_default=False)] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Write to this file.")] = Path("suite.yaml"),
) -> None:
    """Write a suite for your network and your data: looks at both, chooses, says why, and what it will cost."""
    output = output.expanduser()
    if output.exists():
        raise UserError(f"{output} is there already: give another --output, or remove it")
    if checkpoint is not None and pretrained:
        raise UserError("--checkpoint and --pretrained are weights to start from, both: give one")
    from dms_bench.trial.begin import begin, machine
    from dms_bench.trial.plan import cost_lines, plan

    targets = {"macs": macs, "params": params, "latency": latency}
    gpus, cpus = machine()
    brought = Brought(model, data, checkpoint, pretrained, gpus, cpus)
    given = {kind: target for kind, target in targets.items() if target is not None}
    options = {"model": model, "data": data, **given, "checkpoint": checkpoint, "task": task}
    words = [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]
    command = shlex.join(["dms-bench", "new", *words, *(["--pretrained"] if pretrained else [])])
    begun = begin(brought, given, task, command)
    planned = plan(begun.suite)
    write(begun.text, output)
    for line in (*_chosen(begun), *cost_lines(planned, begun.suite.experiments[0].resources is not None)):
        typer.echo(line)
    typer.echo("")
    file = shlex.quote(str(output))
    typer.echo(f"dms-bench run {file} --smoke  # first: everything once, in small")
    typer.echo(f"dms-bench run {file}  # then; dms-bench leaderboard --suite {begun.suite.name} compares")


def _chosen(begun: Begun) -> list[str]:
    """Return what was chosen and why, a line for each choice with a reason."""
    return [
        "",
        *(f"{choice.field}: {_short(choice.value)} - {choice.why}" for choice in begun.choices if choice.why),
        "",
    ]


def _short(value: object) -> str:
    """Write a value as a suite does."""
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=10_000)
    return text.removesuffix("...\n").strip()
