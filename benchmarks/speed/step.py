"""What a search step costs: time and memory of it over those of a plain training step.

A plain step is forward pass, task loss, backward pass and the weights' optimiser step. A search step
adds masks, resource loss, the structure's optimiser step and `update()`. Steps of both kinds are
interleaved in one process; memory is measured in a process of its own for each kind.

    OMP_NUM_THREADS=1 python benchmarks/speed/step.py
    OMP_NUM_THREADS=1 python benchmarks/speed/step.py --case resnet50:16:128 --steps 24
    python benchmarks/speed/step.py --device cuda --amp --case resnet50:128:224
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.scaling import SearchSpace, Supernet, budget_of, find_space

#: model:batch:pixels
CASES = (
    *("resnet50:16:128", "efficientnet_b0:16:128", "deit_tiny_patch16_224:8:224"),
    *("resnet50:4:128", "efficientnet_b0:4:128", "deit_tiny_patch16_224:4:224"),
)
WARM_UP = 3
MIB = 2**20


class Bench:
    """One case: a network, its batch, and the two kinds of step."""

    def __init__(self, case: str, device: str, amp: bool, compiled: bool, space: Path | None = None) -> None:
        name, batch, pixels = case.split(":")
        self.device, self.amp, self.compiled = torch.device(device), amp, compiled
        torch.manual_seed(0)
        self.model = timm.create_model(name, num_classes=1000, **_size(name, int(pixels)))
        self.example = torch.randn(1, 3, int(pixels), int(pixels))
        self.images = torch.randn(int(batch), 3, int(pixels), int(pixels), device=self.device)
        self.labels = torch.randint(0, 1000, (int(batch),), device=self.device)
        self._space = space

    @cached_property
    def space(self) -> SearchSpace:
        """The search space, read where another process has built it."""
        if self._space is None:
            return find_space(copy.deepcopy(self.model), self.example)
        space: SearchSpace = torch.load(self._space, weights_only=False)
        return space

    def plain(self) -> Callable[[], None]:
        """Return the plain step."""
        model = copy.deepcopy(self.model).to(self.device).train()
        weights = _optimizer(model)
        forward = torch.compile(model) if self.compiled else model

        def step() -> None:
            self._loss(forward).backward()
            weights.step()
            weights.zero_grad()

        return step

    def search(self) -> Callable[[], None]:
        """Return the search step, in the middle of a search: importance known, masks soft."""
        model = copy.deepcopy(self.model)
        net = Supernet(model, self.space).to(self.device).train()
        with torch.no_grad():
            net.importance.uniform_(0, 1)
            net.ratios.uniform_(0.1, 0.6)
        net.update()
        weights = _optimizer(model)
        structure = torch.optim.Adam(net.structure_parameters(), lr=1e-3)
        space = net.space
        macs = float(space.macs_model(*(size.detach().cpu() for size in net.soft_size())))
        budget = budget_of(space, macs=0.8 * macs).to(self.device)
        forward = torch.compile(net) if self.compiled else net

        def step() -> None:
            (self._loss(forward) + net.resource_loss(budget)).backward()
            weights.step()
            structure.step()
            weights.zero_grad()
            structure.zero_grad()
            net.update()

        return step

    def _loss(self, forward: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            scores = forward(self.images)
        return functional.cross_entropy(scores.float(), self.labels)

    def seconds(self, steps: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """Return (wall, processor) seconds of interleaved plain and search steps."""
        kinds = (self.plain(), self.search())
        taken: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
        for turn in range(WARM_UP + steps):
            for step, record in zip(kinds, taken, strict=True):
                wall, processor = time.perf_counter(), time.process_time()
                step()
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                if turn >= WARM_UP:
                    record.append((time.perf_counter() - wall, time.process_time() - processor))
        return taken

    def peak(self, kind: str) -> float:
        """Return the most memory that steps of one kind take, weights included, in bytes."""
        _load_code()
        before = _resident("VmRSS")
        step = self.plain() if kind == "plain" else self.search()
        for _ in range(WARM_UP):
            step()
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else _resident("VmHWM") - before


def _load_code() -> None:
    """Take a search step of a tiny network: the pages of the library's own code are not the step's memory."""
    net = Supernet(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 4)), torch.randn(1, 4))
    optimizers = (_optimizer(net.model), torch.optim.Adam(net.structure_parameters(), lr=1e-3))
    for _ in range(WARM_UP):
        loss = functional.cross_entropy(net(torch.randn(2, 4)), torch.tensor([0, 1]))
        (loss + net.resource_loss(budget_of(net.space, macs=0.5))).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        net.update()


def _size(name: str, pixels: int) -> dict[str, int]:
    return {"img_size": pixels} if "vit" in name or "deit" in name else {}


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)


def _resident(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return float(line.split()[1]) * 1024
    raise RuntimeError("memory is measured through /proc, which this system lacks")


def _peaks(bench: Bench, case: str, options: list[str]) -> list[float]:
    """Measure each kind of step in a fresh process, which does not build the search space."""
    # What is freed goes back to the system at once, so that what is resident is what is in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder, "space.pt")
        torch.save(bench.space, space)
        peaks = []
        for kind in ("plain", "search"):
            command = [sys.executable, __file__, "--case", case, "--peak", kind, "--space", str(space), *options]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            peaks.append(float(done.stdout))
    return peaks


def main() -> None:
    """Measure every case and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="model:batch:pixels; may be given several times")
    parser.add_argument("--steps", type=int, default=12, help="interleaved steps of each kind")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--amp", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile both networks")
    parser.add_argument("--no-memory", action="store_true", help="time only")
    parser.add_argument("--peak", choices=["plain", "search"], help=argparse.SUPPRESS)
    parser.add_argument("--space", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cases = asked.case or CASES
    if asked.peak:
        print(Bench(cases[0], asked.device, asked.amp, asked.compile, asked.space).peak(asked.peak))
        return
    options = ["--device", asked.device, *(["--amp"] if asked.amp else []), *(["--compile"] if asked.compile else [])]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {asked.device}\n")
    columns = ["model", "batch", "pixels", "plain step", "search / plain", "by processor time"]
    columns += [] if asked.no_memory else ["plain memory", "search / plain"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for case in cases:
        bench = Bench(case, asked.device, asked.amp, asked.compile)
        plain, search = bench.seconds(asked.steps)
        medians = [[statistics.median(column) for column in zip(*kind, strict=True)] for kind in (plain, search)]
        cells = [*case.split(":"), f"{medians[0][0] * 1e3:.0f} ms"]
        cells += [f"{medians[1][clock] / medians[0][clock]:.3f}" for clock in (0, 1)]
        if not asked.no_memory:
            peaks = _peaks(bench, case, options)
            cells += [f"{peaks[0] / MIB:.0f} MiB", f"{peaks[1] / peaks[0]:.3f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
