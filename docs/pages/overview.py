"""Draws overview.svg, the picture on the front page.

    python docs/pages/overview.py

Three of its parts are a sketch. The fourth is measured: table 4's experiment `en-b0`, five seeds, from
`benchmarks/results/before_after.csv` (rows of today's core for DMS; the other networks do not search).
"""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from dms_bench.report.statistics import estimate

HERE = Path(__file__).parent
MEASURED = HERE.parents[1] / "benchmarks" / "results" / "before_after.csv"

#: Channels of a sketched layer, those that stay, and whether it is a block that goes.
LAYERS = [(8, 4, False), (10, 7, False), (10, 3, False), (10, 0, True), (12, 9, False), (12, 5, False)]
KEPT, GONE, FRAME = "#3465a4", "#d8d8d8", "#777777"


def layers(axes: Axes, title: str, below: str, *, masked: bool, cut: bool) -> None:
    """Draw a network as columns of channels: whole, under masks, or cut."""
    place = 0
    for size, kept, goes in LAYERS:
        if cut and goes:
            continue
        count = kept if cut else size
        for channel in range(count):
            colour = GONE if masked and channel >= kept else KEPT
            axes.add_patch(plt.Rectangle((place, channel - count / 2), 0.62, 0.8, color=colour, linewidth=0))
        if masked and goes:
            frame = FancyBboxPatch((place, -size / 2), 0.62, size - 0.2, boxstyle="round,pad=0.12", fill=False)
            frame.set(edgecolor=FRAME, linestyle="--", linewidth=1)
            axes.add_patch(frame)
        place += 1
    axes.set(xlim=(-0.4, 6), ylim=(-7, 6.6))
    axes.set_title(title, fontsize=11, fontweight="bold")
    axes.text(2.8, -8.4, below, ha="center", va="center", fontsize=9)
    axes.axis("off")


def accuracies() -> dict[str, list[float]]:
    """Return top-1 accuracies by seed of the networks at the designed network's MACs."""
    found: dict[str, list[float]] = {}
    names = {"dms": "DMS", "supernet": "designed\nnetwork", "uniform": "one ratio\nfor all", "random": "random"}
    with MEASURED.open() as file:
        for row in csv.DictReader(file):
            table = row["suite"] == "table04" and row["experiment"] in ("en-b0", "b0-designed")
            if table and (row["method"], row["arm"]) != ("dms", "before"):
                found.setdefault(names[row["method"]], []).append(float(row["top1"]))
    return {name: found[name] for name in names.values()}


def board(axes: Axes) -> None:
    """Draw every seed's accuracy, and the mean with its 95 % interval."""
    found = accuracies()
    for place, values in enumerate(found.values()):
        mean, half, _ = estimate(values)
        axes.errorbar(place + 0.12, mean, half, fmt="o", color=KEPT, capsize=3, markersize=5)
        axes.plot([place - 0.12] * len(values), values, "o", color=FRAME, markersize=3, markeredgewidth=0)
    axes.set_xticks(range(len(found)), list(found), fontsize=8)
    axes.set_xlim(-0.5, len(found) - 0.5)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title("4  retrain, test, compare", fontsize=11, fontweight="bold")
    axes.text(1.5, axes.get_ylim()[0] - 0.30 * (axes.get_ylim()[1] - axes.get_ylim()[0]),
              "test accuracy [%] at equal MACs, five seeds each\n(measured; rendered characters, 2.19 MMACs)",
              ha="center", va="center", fontsize=9)  # fmt: skip
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def main() -> None:
    """Draw the picture."""
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "overview", "font.family": "DejaVu Sans"})
    figure, parts = plt.subplots(1, 4, figsize=(13, 3.6), gridspec_kw={"width_ratios": [1, 1, 1, 1.35]})
    network = "every layer with its channels,\nevery block (sketch)"
    search = "one ratio per layer group and stage\nis trained along with the weights (sketch)"
    result = "plain PyTorch, at the budget:\nMACs, parameters or latency (sketch)"
    layers(parts[0], "1  your network", network, masked=False, cut=False)
    layers(parts[1], "2  search", search, masked=True, cut=False)
    layers(parts[2], "3  smaller network", result, masked=False, cut=True)
    board(parts[3])
    figure.subplots_adjust(left=0.01, right=0.99, top=0.9, bottom=0.26, wspace=0.12)
    figure.savefig(HERE / "overview.svg", facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main()
