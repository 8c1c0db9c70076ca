"""What a whole search costs: its wall time over that of as many plain training steps of the same network.

Every step is taken by all kinds in turn, in one process, so that a load on the machine slows all of them alike:

    plain         the network without masks, as it would be trained
    masked        a search for the target by the loss above a falling target
    skip_zeros    the same search by a twin without what the masks make zero
    depth first   likewise, the depth decided in the first third of the search

    OMP_NUM_THREADS=1 python benchmarks/speed/search.py
    OMP_NUM_THREADS=1 python benchmarks/speed/search.py --case resnet50:16:128 --steps 200 --csv search.csv

Twins are built and searched for in these times. A real search has more steps, for each of which the structure moves
less: the structure's learning rate is as high as the few steps need, so that twins are built more often than there.
"""

from __future__ import annotations

import argparse
import copy
import csv
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.scaling import Schedule, SearchSpace, Supernet, budget_of, find_space
from dms_bench.scaling.twin import Twin

KINDS: dict[str, tuple[Schedule, bool] | None] = {
    "plain": None,
    "masked": (Schedule(), False),
    "skip_zeros": (Schedule(), True),
    "depth first": (Schedule(depth=0.33), True),
}
#: The structure's learning rate, times the number of steps: Adam may move each ratio by as much in a search.
LR_TIMES_STEPS = 3.0


class Steps:
    """One kind of step of a network."""

    def __init__(self, model: nn.Module, space: SearchSpace, kind: str, target: float, steps: int) -> None:
        self.model, self.steps, self.twins = copy.deepcopy(model).train(), steps, 0
        self.weights = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.seconds: list[float] = []
        self.net: Supernet | None = None
        phases = KINDS[kind]
        if phases is not None:
            self.schedule, skips = phases
            self.net = Supernet(self.model, space, skip_zeros=skips).train()
            self.structure = torch.optim.Adam(self.net.structure_parameters(), lr=LR_TIMES_STEPS / steps)
            self.budget = budget_of(space, macs=target)

    def take(self, number: int, images: Tensor, labels: Tensor) -> None:
        """Take a step and note its time."""
        begin = time.perf_counter()
        if self.net is None:
            functional.cross_entropy(self.model(images), labels).backward()
            self.weights.step()
            self.weights.zero_grad()
        else:
            budget = self.net.begin_step(number / self.steps, self.budget, self.schedule)
            loss = functional.cross_entropy(self.net(images), labels) + self.net.resource_loss(budget)
            loss.backward()
            self.weights.step()
            self.structure.step()
            self.weights.zero_grad()
            self.structure.zero_grad()
            self.net.update()
        self.seconds.append(time.perf_counter() - begin)


def main() -> None:
    """Measure a case and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default="resnet50:8:128", help="model:batch:pixels")
    parser.add_argument("--steps", type=int, default=100, help="steps of a search")
    parser.add_argument("--target", type=float, default=0.3, help="share of the MACs that the search ends at")
    parser.add_argument("--csv", type=Path, help="where the seconds of every step go")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    name, batch, pixels = asked.case.split(":")
    size = {"img_size": int(pixels)} if "vit" in name or "deit" in name else {}
    model = timm.create_model(name, num_classes=1000, **size)
    space = find_space(copy.deepcopy(model), torch.randn(2, 3, int(pixels), int(pixels)))
    kinds = {kind: Steps(model, space, kind, asked.target, asked.steps) for kind in KINDS}
    built = _counted()
    for number in range(asked.steps):
        images = torch.randn(int(batch), 3, int(pixels), int(pixels))
        labels = torch.randint(0, 1000, (int(batch),))
        for steps in kinds.values():
            before = built()
            steps.take(number, images, labels)
            steps.twins += built() - before
        print(f"\r{number + 1} of {asked.steps}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    plain = sum(kinds["plain"].seconds)
    print(f"torch {torch.__version__}, one thread, {platform.processor() or platform.machine()}, {asked.case}\n")
    print(
        "| kind | seconds | / plain | last fifth / plain | twins | MACs paid for at the end | blocks |\n"
        + "|---" * 7
        + "|"
    )
    last = asked.steps - asked.steps // 5
    for kind, steps in kinds.items():
        row = [kind, f"{sum(steps.seconds):.1f}", f"{sum(steps.seconds) / plain:.3f}"]
        row.append(f"{sum(steps.seconds[last:]) / sum(kinds['plain'].seconds[last:]):.3f}")
        if steps.net is None:
            row += ["", "", ""]
        else:
            kept, blocks = (part.detach() for part in steps.net.soft_size())
            row += [
                str(steps.twins),
                f"{float(space.macs_model(kept, blocks)) / space.macs:.3f}",
                f"{float(blocks.sum()):g}",
            ]
        print("| " + " | ".join(row) + " |")
    if asked.csv:
        with asked.csv.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["step", *kinds])
            writer.writerows(
                [number, *(f"{seconds:.4f}" for seconds in row)]
                for number, row in enumerate(zip(*(steps.seconds for steps in kinds.values()), strict=True))
            )


def _counted() -> Callable[[], int]:
    """Return what tells how many twins have been built."""
    built, original = [0], Twin.__init__

    def counting(self: Twin, model: nn.Module, space: SearchSpace, alive: Tensor) -> None:
        built[0] += 1
        original(self, model, space, alive)

    Twin.__init__ = counting  # type: ignore[method-assign]
    return lambda: built[0]


if __name__ == "__main__":
    main()
