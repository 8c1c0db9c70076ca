"""Commands on networks alone, without a suite."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dms_bench.cli.output import Output, write
from dms_bench.config.supernet import SupernetSpec, parse_supernet
from dms_bench.errors import UserError

if TYPE_CHECKING:
    from dms_bench.scaling import SearchSpace

#: Of ImageNet, for which most of timm's networks were made.
_CLASSES, _COLOURS = 1000, 3


def space(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model of timm, `torchvision:NAME`, a folder of transformers, or `package.module:function`.",
            show_default=False,
        ),
    ],
    example: Annotated[
        str | None,
        typer.Option(
            metavar="SHAPES",
            help="An input of what `package.module:function` makes, which then need not classify images: "
            "`[1, 3, 64, 64]`, or `{ids: {shape: [1, 16], below: 1000}, mask: {shape: [1, 16], value: 1}}`.",
            show_default=False,
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Height and width; the model's own by default.", show_default=False)
    ] = None,
    channels: Annotated[
        int | None, typer.Option(min=1, help="Channels of the image; 3 by default.", show_default=False)
    ] = None,
    arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="An argument of `timm.create_model`, or of your function; again for more."
        ),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE",
            help="A field of a suite's `supernet`: `space.coarse=[{groups: '*.fc1', step: 96}]`; again for more.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Leave out groups and stages of such names; again for more."),
    ] = None,
    format: Annotated[Literal["table", "json"], typer.Option("--format", "-f", help="How to write it.")] = "table",
    output: Output = None,
) -> None:
    """Find and prove the search space of a network: what is searched, what not and why."""
    supernet = _supernet(model, arg or [], exclude or [], set or [])

    from dms_bench.report.space import describe_space, render_space

    if example is not None:
        if image_size is not None or channels is not None:
            raise UserError("--example says what the network is given: leave --image-size and --channels out")
        input_text, search_space = _by_example(supernet, example)
        description = describe_space(supernet.label(), input_text, search_space)
    else:
        channels = channels or _COLOURS
        size, search_space, was_cached = _classifier(supernet, channels, image_size)
        description = {**describe_space(supernet.label(), (channels, size, size), search_space), "cached": was_cached}
    write(json.dumps(description, indent=2) if format == "json" else render_space(description), output)


def _classifier(supernet: SupernetSpec, channels: int, image_size: int | None) -> tuple[int, SearchSpace, bool]:
    """Return the size of images, the space of a classifier of these, and whether it was known."""
    from dms_bench.trial.spaces import cached, find_specified
    from dms_bench_tasks.classification.model import build, example_input, own_size
    from dms_bench_tasks.classification.sources import other_source
    from dms_bench_tasks.classification.spec import ClassificationTask

    size = image_size or own_size(supernet.model)

    def find() -> SearchSpace:
        network = build(supernet, _CLASSES, channels, size, seed=0)
        return find_specified(network, example_input(1, channels, size), supernet.space)

    if ":" in supernet.model or other_source(supernet.model) is not None:
        return size, find(), False
    request = {"supernet": supernet.model_dump(mode="json"), "input": [channels, size, size], "classes": _CLASSES}
    return size, *cached(request, ClassificationTask, find)


def _by_example(supernet: SupernetSpec, text: str) -> tuple[str, SearchSpace]:
    """Return what an example is in words, and the space of a network of one's own on it.

    Raises:
        UserError: there is no such network, or it does not take the example.
    """
    import yaml

    from dms_bench.trial.spaces import space_on

    try:
        example, search_space = space_on(supernet, yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise UserError(f"--example {text!r}: {' '.join(str(error).split())}") from error
    return repr(example).removeprefix("Example(").removesuffix(")"), search_space


def _supernet(model: str, args: list[str], exclude: list[str], fields: list[str]) -> SupernetSpec:
    """Return the supernet that options describe.

    Raises:
        UserError: they do not.
    """
    content: dict[str, Any] = {"model": model, "args": {}, "space": {"exclude": exclude}}
    for text in args:
        key, value = _assignment("--arg", text, "drop_rate=0.1")
        content["args"][key] = value
    for text in fields:
        key, value = _assignment("--set", text, "space.depth=false")
        *parents, last = key.split(".")
        node = content
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"--set {text!r}: {parent} has no fields")
        node[last] = value
    return parse_supernet(content)


def _assignment(option: str, text: str, example: str) -> tuple[str, Any]:
    """Read `key=value`, the value as in a suite file.

    Raises:
        UserError: it is not written like that.
    """
    import yaml

    key, equals, value = text.partition("=")
    try:
        if equals and all(part.isidentifier() for part in key.split(".")):
            return key, yaml.safe_load(value)
    except yaml.YAMLError:
        pass
    raise UserError(f"{option} {text!r}: write it as key=value, for example {example}")
