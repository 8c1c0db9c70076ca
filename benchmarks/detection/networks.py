"""What is searched of Ultralytics' networks, how exactly it is proven, and what a search step costs.

The plain step is Ultralytics' own: its network and losses, backward pass, clipping, optimiser, average of weights.
The search step does the same to the network that is searched (whose cross-stage blocks have a convolution per half),
with masks, resource loss, the structure's optimiser and `update()`, in the middle of a search: importance known,
masks soft. Steps of both kinds are interleaved in one process, on a batch of glyph scenes.

    OMP_NUM_THREADS=1 python benchmarks/detection/networks.py
    OMP_NUM_THREADS=1 python benchmarks/detection/networks.py --model yolov8m.yaml --steps 6
    python benchmarks/detection/networks.py --device cuda --batch 64 --pixels 640
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench.methods.gradient.spec import Dms
from dms_bench.methods.gradient.structure import DmsStructure
from dms_bench.scaling import SearchSpace, Supernet, budget_of, count, find_space
from dms_bench_tasks.detection.offline import set_up
from dms_bench_tasks.detection.spec import DetectionTask

MODELS = ("yolov8n.yaml", "yolov8s.yaml", "yolo11n.yaml", "yolo26n.yaml")
CLASSES = 80
WARM_UP = 2


def stepper(model: nn.Module, weights: nn.Module, batch: dict[str, torch.Tensor], hook: DmsStructure | None):
    """Return a step as Ultralytics' trainer takes it, with the hook of a search where there is one."""
    from ultralytics.utils.torch_utils import ModelEMA

    optimizer = torch.optim.SGD(weights.parameters(), lr=1e-4, momentum=0.9, nesterov=True)
    average = ModelEMA(model)

    def step() -> None:
        if hook is not None:
            hook.begin_step(0.4)
        losses, _ = model(dict(batch))
        losses.sum().backward()
        nn.utils.clip_grad_norm_(weights.parameters(), 10.0)
        optimizer.step()
        if hook is not None:
            hook.end_step()
        optimizer.zero_grad()
        average.update(model)

    return step


def steps(name: str, space: SearchSpace, batch: dict[str, torch.Tensor], device: torch.device):
    """Return the plain step and the search step of a network."""
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    from dms_bench_tasks.detection import model as models
    from dms_bench_tasks.detection.searched import Searched, SearchLoss

    own = DetectionModel(name, ch=3, nc=CLASSES, verbose=False)
    own.args = get_cfg()
    detector = models.build(SupernetSpec(model=name), CLASSES, 0)
    detector.raw = False
    net = Supernet(detector, space).to(device)
    with torch.no_grad():
        net.importance.uniform_(0, 1)
        net.ratios.uniform_(0.1, 0.5)
    net.update()
    hook = DmsStructure(net, Dms(), budget_of(space, macs=0.3), trains_weights=True)
    searched = Searched(net, SearchLoss(hook.loss)).train()
    return stepper(own.to(device).train(), own, batch, None), stepper(searched, detector, batch, hook)


def seconds(kinds: tuple[Callable[[], None], ...], turns: int, device: torch.device) -> list[list[tuple[float, float]]]:
    """Return (wall, processor) seconds of interleaved steps of each kind."""
    taken: list[list[tuple[float, float]]] = [[] for _ in kinds]
    for turn in range(WARM_UP + turns):
        for step, record in zip(kinds, taken, strict=True):
            wall, processor = time.perf_counter(), time.process_time()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= WARM_UP:
                record.append((time.perf_counter() - wall, time.process_time() - processor))
    return taken


def row(name: str, batch_size: int, pixels: int, turns: int, device: torch.device) -> list[str]:
    """Measure one network."""
    from dms_bench_tasks.detection import model as models
    from dms_bench_tasks.detection.data import Source

    network, example = models.build(SupernetSpec(model=name), CLASSES, 0), models.example_input(2, pixels)
    cells = [name.removesuffix(".yaml")]
    spaces = []
    for form in (network, models.fused(network)):
        space, counted = find_space(form, example), count(form, example[:1])
        smallest, whole = space.reachable(space.macs_model)
        blocks = sum(stage.size for stage in space.stages)
        cells += [f"{counted.macs / 1e9:.3f}", f"{counted.params / 1e6:.2f}", f"{len(space.groups)} + {blocks}"]
        cells += [f"{1 - smallest / whole:.1%}", f"{space.proof_error:.0e}"]
        spaces.append(space)
    cells.append(f"{spaces[0].seconds:.1f} s")
    data = {"name": "glyph-scenes", "train": batch_size, "val": 1, "test": 1}
    source = Source(DetectionTask(data=data, image_size=pixels))
    batch = next(source.probe(batch_size, batch_size, device))
    plain, search = seconds(steps(name, spaces[0], batch, device), turns, device)
    medians = [[statistics.median(column) for column in zip(*kind, strict=True)] for kind in (plain, search)]
    cells.append(f"{medians[0][1] * 1e3:.0f} ms")
    return cells + [f"{medians[1][clock] / medians[0][clock]:.3f}" for clock in (0, 1)]


def main() -> None:
    """Measure every network and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="a model YAML of Ultralytics; may be given several times")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pixels", type=int, default=320)
    parser.add_argument("--steps", type=int, default=10, help="interleaved steps of each kind")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    asked = parser.parse_args()
    set_up()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {asked.device}, batch {asked.batch}, {asked.pixels} px\n")
    form = ("GMACs", "M params", "groups + blocks", "searchable", "proof error")
    columns = ["network", *form, *(f"fused: {name}" for name in form), "found in", "plain step"]
    columns += ["search / plain, wall", "processor time"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for name in asked.model or MODELS:
        cells = row(name, asked.batch, asked.pixels, asked.steps, torch.device(asked.device))
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
