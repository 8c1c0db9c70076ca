"""Draws what a search found and what the network sees: widths and depths before and after, boxes on test scenes.

dms-bench run benchmarks/detection.yaml
dms-bench export TRIAL --output found
python benchmarks/detection/picture.py found --output picture.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from dms_bench.trial.record import ARCHITECTURE
from dms_bench_tasks.detection.offline import quiet, set_up
from dms_bench_tasks.detection.spec import DetectionTask

#: Scenes beside the depths, and in the row below.
BESIDE, BELOW = 6, 8
CONFIDENCE = 0.25


def draw_sizes(axes: Axes, sizes: dict[str, list[int]], title: str) -> None:
    """Draw kept over all, in the order of the network."""
    names = sorted(sizes, key=lambda name: [int(part) if part.isdigit() else -1 for part in name.split(".")])
    places = range(len(names))
    axes.bar(places, [sizes[name][1] for name in names], color="#d0d4da", label="before")
    axes.bar(places, [sizes[name][0] for name in names], color="#2b6cb0", label="after")
    axes.set_xticks(list(places), [name.removeprefix("model.") for name in names], rotation=90, fontsize=5)
    axes.set_title(title, fontsize=9, loc="left")
    axes.legend(frameon=False, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def draw_scene(axes: Axes, path: Path, found: Any, names: dict[int, str]) -> None:
    """Draw a scene, its boxes (dotted) and those that the network predicts, with class and confidence."""
    image = Image.open(path)
    axes.imshow(image)
    label = Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")
    for line in label.read_text().splitlines():
        _, x, y, width, height = (float(word) * image.width for word in line.split())
        corner = (x - width / 2, y - height / 2)
        axes.add_patch(Rectangle(corner, width, height, fill=False, linestyle=":", edgecolor="white", linewidth=1))
    for box in found.boxes:
        left, top, right, bottom = box.xyxy[0].tolist()
        frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="#f6e05e", linewidth=1)
        axes.add_patch(frame)
        text = f"{names[int(box.cls)]} {float(box.conf):.2f}"
        axes.text(left, top, text, fontsize=5, va="bottom", color="black", backgroundcolor="#f6e05e", clip_on=True)
    axes.axis("off")


def main() -> None:
    """Draw one picture of an exported trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `dms-bench export` wrote")
    parser.add_argument("--output", type=Path, default=Path("picture.png"))
    asked = parser.parse_args()
    description = json.loads((asked.folder / ARCHITECTURE).read_text())
    set_up()
    from ultralytics import YOLO

    from dms_bench_tasks.detection.data import Source

    task = DetectionTask.model_validate(description["task"])
    test = Path(Source(task).description["test"])
    paths = sorted(test.glob("*.png"))[: BESIDE + BELOW]
    with quiet():
        network = YOLO(asked.folder / "best.pt")
        found = network.predict([str(path) for path in paths], imgsz=task.image_size, conf=CONFIDENCE, save=False)
    stages = set(description["architecture"]["stages"])
    sizes = description["sizes"]
    figure = plt.figure(figsize=(12, 7.5), layout="constrained")
    grid = figure.add_gridspec(3, BELOW, height_ratios=[2.2, 1.6, 1.6])
    widths = {name: size for name, size in sizes.items() if name not in stages}
    depths = {name: size for name, size in sizes.items() if name in stages}
    draw_sizes(figure.add_subplot(grid[0, :]), widths, "channels of every width group")
    draw_sizes(figure.add_subplot(grid[1, : BELOW - BESIDE]), depths, "removable bottlenecks of every stage")
    for place, (path, result) in enumerate(zip(paths, found, strict=True)):
        row, column = (1, BELOW - BESIDE + place) if place < BESIDE else (2, place - BESIDE)
        draw_scene(figure.add_subplot(grid[row, column]), path, result, network.names)
    figure.savefig(asked.output, dpi=130)
    print(asked.output)


if __name__ == "__main__":
    main()
