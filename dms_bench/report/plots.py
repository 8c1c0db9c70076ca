"""Pictures that are kept with a trial."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

_WIDTH, _DEPTH, _TOTAL = "#0072b2", "#d55e00", "#dde3ea"
_ROW_INCHES = 0.24


def plot_architecture(sizes: Mapping[str, tuple[int, int]], stages: Collection[str], path: Path | str) -> None:
    """Draw how much of each width group and stage is kept, as a horizontal bar each.

    Args:
        sizes: name of a group or stage -> (kept, total), in the order of the network.
        stages: which of the names are stages, whose sizes are blocks.
        path: file to write; its suffix says which kind (`.png`, `.svg`, `.pdf`).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = range(len(sizes))
    shares = [100 * kept / total for kept, total in sizes.values()]
    figure = Figure(figsize=(8.0, 1.1 + _ROW_INCHES * max(len(sizes), 1)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.barh(rows, [100.0] * len(sizes), height=0.72, color=_TOTAL)
    axes.barh(rows, shares, height=0.72, color=[_DEPTH if name in stages else _WIDTH for name in sizes])
    for row, (name, (kept, total)) in enumerate(sizes.items()):
        unit = " blocks" if name in stages else ""
        axes.text(101.5, row, f"{kept} / {total}{unit}", va="center", fontsize=7.5, color="#333333")
    axes.set_yticks(rows, [_shorten(name) for name in sizes], fontsize=7.5)
    axes.set_ylim(len(sizes) - 0.4, -0.6)
    axes.set_xlim(0, 119)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_xlabel("kept [%]: channels, heads and features blue, blocks orange", fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    figure.savefig(path)


def _shorten(name: str, length: int = 36) -> str:
    """Keep the end of a long module name, where the difference is."""
    return name if len(name) <= length else "…" + name[-(length - 1) :]
