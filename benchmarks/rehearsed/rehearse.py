"""Rehearse the paper's tables in their full setting on this machine: true networks and recipes, a few pictures.

python benchmarks/rehearsed/rehearse.py table04 table08

Each table's output goes to a file here, with the command, the machine and the commit. What a machine without GPUs and
data cannot have is given in its place, and nothing else: pictures (one for each class, in ImageNet's folders), weights
of pretrained networks (random ones, in a file), one worker on one thread in place of eight with a GPU each, and
batches of a few pictures.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
from PIL import Image
from safetensors.torch import save_file

from dms_bench.tracking.environment import environment

HERE = Path(__file__).parent
CLASSES = 1000
#: Pictures of a batch.
BATCH = 4
#: What each table needs besides: its stages with a recipe, the weights that it starts from, the trials that fit here.
TABLES: dict[str, tuple[str, str, str]] = {
    "table02": ("search", "resnet50.tv_in1k", ""),
    "table03": ("pretrain search", "", ""),
    "table04": ("search retrain", "", "en350,en-b0,en450,b0-designed"),
    "table05": ("search retrain", "resnet50.tv_in1k", ""),
    "table06": ("search retrain", "", ""),
    "table08": ("search retrain", "", ""),
    "table09": ("search retrain", "", ""),
    "table10": ("search retrain", "", ""),
    "table11": ("search", "resnet50.tv_in1k", ""),
    "table12": ("pretrain search retrain", "", ""),
    "table13": ("pretrain search", "", ""),
    "table14": ("search retrain", "", ""),
    "table15": ("search retrain", "", ""),
    "table16": ("pretrain search retrain", "", ""),
}


def pictures(root: Path) -> None:
    """Write a picture for each class into folders as ImageNet has them."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((500, 375))
    for split in ("train", "validation"):
        for number in range(CLASSES):
            folder = root / split / f"n{number:08d}"
            folder.mkdir(parents=True)
            picture.save(folder / "one.JPEG")


def scenes(root: Path) -> None:
    """Write a few pictures with a box each, as Ultralytics has COCO."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((640, 480))
    for split, number in (("train2017", 100), ("val2017", 8)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        names = [f"{index:012d}" for index in range(number)]
        for name in names:
            picture.save(root / "images" / split / f"{name}.jpg")
            (root / "labels" / split / f"{name}.txt").write_text("0 0.5 0.5 0.4 0.3\n")
        (root / f"{split}.txt").write_text("".join(f"./images/{split}/{name}.jpg\n" for name in names))


def command(table: str, scratch: Path) -> list[str]:
    """Return the rehearsal of a table, its weights being made where it needs some."""
    stages, weights, experiments = TABLES[table]
    data = {"table09": "coco", "table10": None}.get(table, "imagenet")
    given = [
        *([f"task.data.root={scratch / data}", "task.data.train_images=null"] if data else []),
        "resources={workers: 1, cpus: 1.5, gpus: 0}",
        *(f"{stage}.batch_size={BATCH}" for stage in stages.split()),
    ]
    if weights:
        path = scratch / "weights.safetensors"
        save_file(timm.create_model(weights, pretrained=False).state_dict(), path)
        given += ["supernet.pretrained=false", f"supernet.checkpoint={path}"]
    words = ["rehearse", str(HERE.parent / "paper" / f"{table}.yaml"), "--profile", "full", "--device", "A100-40GB"]
    words += [word for change in given for word in ("--set", change)]
    return words + (["--only", f"experiment={experiments}"] if experiments else [])


def main() -> None:
    """Rehearse, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", choices=TABLES)
    about = environment()
    for table in parser.parse_args().tables:
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            pictures(scratch / "imagenet")
            scenes(scratch / "coco")
            words = command(table, scratch)
            done = subprocess.run(
                [sys.executable, "-m", "dms_bench", *words], cwd=scratch, capture_output=True, text=True
            )
            typed = shlex.join(["dms-bench", *words]).replace(f"{HERE.parents[1]}/", "")
            head = [
                f"$ {typed}".replace(str(scratch), "SCRATCH"),
                f"machine: {about['cpu']}, {about['cores']} cores; torch {about['torch']}; "
                f"commit {about.get('git_commit', 'unknown')}; exit code {done.returncode}",
            ]
            output = (done.stdout + done.stderr).replace(str(scratch), "SCRATCH")
            lines = [line.rstrip() for line in "\n".join([*head, "", output]).splitlines()]
            (HERE / f"{table}.txt").write_text("\n".join(lines).rstrip() + "\n")
            print(f"{table}: exit code {done.returncode}")


if __name__ == "__main__":
    main()
