"""Commands on networks alone, without a suite."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from dms_bench.cli.output import Output, write
from dms_bench.errors import UserError

#: Of ImageNet, for which most of timm's networks were made.
_CLASSES = 1000


def space(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model of timm, by name.", show_default=False)],
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Height and width; the model's own by default.", show_default=False)
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the image.")] = 3,
    arg: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An argument of `timm.create_model`; again for more."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Leave out groups and stages of such names; again for more."),
    ] = None,
    format: Annotated[Literal["table", "json"], typer.Option("--format", "-f", help="How to write it.")] = "table",
    output: Output = None,
) -> None:
    """Find and prove the search space of a network: what is searched, what not and why."""
    args = dict(map(_argument, arg or ()))

    from dms_bench.report.space import describe_space, render_space
    from dms_bench.scaling import find_space
    from dms_bench.spec.supernet import SupernetSpec
    from tasks.classification.model import build, example_input, own_size

    size = image_size or own_size(model)
    network = build(SupernetSpec(model=model, args=args), _CLASSES, channels, size, seed=0)
    found = find_space(network, example_input(1, channels, size), exclude=exclude or ())
    description = describe_space(model, (channels, size, size), found)
    write(json.dumps(description, indent=2) if format == "json" else render_space(description), output)


def _argument(text: str) -> tuple[str, Any]:
    """Read `key=value`, the value as in a suite file.

    Raises:
        UserError: it is not written like that.
    """
    import yaml

    key, equals, value = text.partition("=")
    try:
        if key.isidentifier() and equals:
            return key, yaml.safe_load(value)
    except yaml.YAMLError:
        pass
    raise UserError(f"--arg {text!r}: write it as key=value, for example drop_rate=0.1")
