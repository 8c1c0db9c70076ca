"""Figure 4: the width of every layer of a searched network, above that of the designed one."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dms_bench.errors import UserError
from dms_bench.report.records import Record
from dms_bench.tracking import connect

_KEPT, _WHOLE, _INK = "#0072b2", "#d5dae1", "#1d2430"
_SHADES = ("#f3f5f8", "#ffffff")
#: Layers that are not of the trunk: they squeeze, and would hide the others' pattern.
_LEFT_OUT = re.compile(r"\.se\.")


@dataclass(frozen=True)
class Layer:
    """One width group of a network."""

    name: str
    kept: int
    whole: int
    stage: str


@dataclass(frozen=True)
class Network:
    """The layers of a trial's network, in its order, without those of removed blocks."""

    title: str
    layers: tuple[Layer, ...]
    #: Blocks of all stages that could have been removed, and those that were not.
    removable: int
    blocks: int

    @property
    def depth(self) -> str:
        """The blocks in words."""
        return f"{self.blocks} of {self.removable} removable blocks" if self.removable else "no block is removable"


def read_network(uri: str, record: Record, title: str) -> Network:
    """Read the architecture of a finished trial.

    Raises:
        UserError: its record is not there.
    """
    client = connect(uri)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(record.run_id, "architecture.json", folder)
            description = json.loads(Path(path).read_text())
    except Exception as error:  # MLflow passes on what its store of artifacts raises
        reason = " ".join(str(error).split())
        raise UserError(f"trial {record.name}: its architecture cannot be read: {reason}") from error
    return network_of(description, title)


def network_of(description: dict[str, Any], title: str) -> Network:
    """Return the layers that a trial's `architecture.json` describes."""
    stages = set(description["architecture"]["stages"])
    removed = tuple(f"{path}." for path in description["surgery"]["skipped"])
    layers = [
        Layer(name, kept, whole, _stage(name, stages))
        for name, (kept, whole) in description["sizes"].items()
        if name not in stages and not _LEFT_OUT.search(name) and not name.startswith(removed)
    ]
    depths = [description["sizes"][stage] for stage in stages]
    return Network(title, tuple(layers), sum(whole for _, whole in depths), sum(kept for kept, _ in depths))


def _stage(name: str, stages: set[str]) -> str:
    enclosing = [stage for stage in stages if name.startswith(f"{stage}.")]
    if enclosing:
        return max(enclosing, key=len)
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 and parts[1].isdigit() else parts[0]


def draw_widths(searched: Network, designed: Network, title: str) -> Any:
    """Return the figure (matplotlib's): two panels with one scale of widths."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.8, 7.2), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 1, sharey=True)
    tallest = max(layer.whole for network in (searched, designed) for layer in network.layers)
    for axes, network in zip(panels, (searched, designed), strict=True):
        _panel(axes, network, tallest)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=10)
    figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold", color=_INK)
    return figure


def _panel(axes: Any, network: Network, tallest: int) -> None:
    positions = range(len(network.layers))
    axes.bar(positions, [layer.whole for layer in network.layers], width=0.8, color=_WHOLE, label="supernet's width")
    axes.bar(positions, [layer.kept for layer in network.layers], width=0.8, color=_KEPT, label="kept")
    start = 0
    for number, (stage, end) in enumerate(_runs(network)):
        axes.axvspan(start - 0.5, end - 0.5, color=_SHADES[number % 2], zorder=0)
        if end - start > 1:
            axes.text((start + end - 1) / 2, 1.10 * tallest, stage, ha="center", va="top", fontsize=8, color="#5b6573")
        start = end
    axes.set_xlim(-0.7, len(network.layers) - 0.3)
    axes.set_ylim(0, 1.12 * tallest)
    axes.set_title(
        f"{network.title}: {network.depth}, {len(network.layers)} widths", loc="left", fontsize=11, color=_INK
    )
    axes.set_ylabel("channels", fontsize=10, color=_INK)
    axes.set_xlabel("layer, from the input to the output (squeeze layers left out)", fontsize=10, color=_INK)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#e3e7ec", lw=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(colors="#4a5361", labelsize=9, length=0)


def _runs(network: Network) -> list[tuple[str, int]]:
    """Return every run of layers of one stage with where it ends."""
    runs: list[tuple[str, int]] = []
    for index, layer in enumerate(network.layers):
        if runs and runs[-1][0] == layer.stage:
            runs[-1] = (layer.stage, index + 1)
        else:
            runs.append((layer.stage, index + 1))
    return runs
