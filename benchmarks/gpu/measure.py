"""What a search costs on a GPU, whether its masks and cuts agree there, and what cut networks gain: one CSV.

Parts run in the order in which they are worth most, each row is written as soon as it is measured, and what no time
was left for, or what failed, is a row that says so. Steps of all kinds are interleaved in one process.

    benchmarks/gpu/run.sh
    benchmarks/gpu/run.sh --part steps --minutes 3
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.kernels.cases import cut_layers
from dms_bench.kernels.check import wrong
from dms_bench.scaling import SearchSpace, Supernet, budget_of, cut, find_space

COLUMNS = ("part", "model", "batch", "pixels", "setting", "measure", "value", "unit", "n", "note")
#: model, batch, pixels
CASES = (
    ("resnet50", 128, 224),
    ("efficientnet_b0", 128, 224),
    ("deit_tiny_patch16_224", 128, 224),
    ("deit_small_patch16_224", 128, 224),
)
SMOKE = (("test_resnet", 4, 32), ("test_vit", 4, 64))
SHARE = 0.3
MIB = 2**20


class Bench:
    """Where results go, and how long there is."""

    def __init__(self, path: Path, device: str, minutes: float, smoke: bool) -> None:
        self.device, self.smoke = torch.device(device), smoke
        self.cases = SMOKE if smoke else CASES
        self.end = time.monotonic() + 60 * minutes
        self._file = path.open("w", newline="")
        self._rows = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
        self._rows.writeheader()

    def row(self, **fields: Any) -> None:
        """Write and print a row at once: a run may be cut off."""
        self._rows.writerow(fields)
        self._file.flush()
        print(" ".join(str(fields[name]) for name in COLUMNS if name in fields), flush=True)

    @property
    def late(self) -> bool:
        """Whether there is no time left."""
        return time.monotonic() > self.end

    def count(self, number: int) -> int:
        """Return a number of repetitions, or two in a smoke run."""
        return 2 if self.smoke else number

    def wait(self) -> None:
        """Wait for what was launched."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object]) -> float:
        """Return what one call takes, to its end."""
        self.wait()
        begin = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - begin


def network(name: str, pixels: int) -> nn.Module:
    """Return a network of timm with random weights, the same every time."""
    torch.manual_seed(0)
    size = {"img_size": pixels} if "deit" in name or "vit" in name else {}
    return timm.create_model(name, num_classes=1000, **size)


@cache
def space_of(name: str, pixels: int) -> SearchSpace:
    """Return a network's search space, found and proven on the processor."""
    return find_space(network(name, pixels), torch.randn(1, 3, pixels, pixels))


def pruned(name: str, pixels: int) -> nn.Module:
    """Return a network cut to `SHARE` of its MACs; what it keeps does not matter here."""
    space, model = space_of(name, pixels), network(name, pixels)
    return cut(model, space, Supernet(model, space).architecture(budget_of(space, macs=SHARE)))


class Steps:
    """Training steps of one case, plain and of a search."""

    def __init__(self, bench: Bench, name: str, batch: int, pixels: int, compiled: bool) -> None:
        self.bench, self.name, self.pixels, self.compiled = bench, name, pixels, compiled
        self.images = self.placed(torch.randn(batch, 3, pixels, pixels))
        self.labels = torch.randint(0, 1000, (batch,), device=bench.device)

    def placed(self, thing: Any) -> Any:
        """Return a network or images on the device, channels-last."""
        return thing.to(self.bench.device, memory_format=torch.channels_last)

    def plain(self, model: nn.Module) -> Callable[[], None]:
        """Return a step of a network as it is."""
        model = self.placed(model).train()
        forward = torch.compile(model) if self.compiled else model
        weights = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

        def step() -> None:
            self.loss(forward).backward()
            weights.step()
            weights.zero_grad()

        return step

    def search(self, projected: bool, progress: Callable[[], float] = lambda: 0.5) -> Callable[[], None]:
        """Return a step of a search; in its middle where nothing else is said."""
        space = space_of(self.name, self.pixels)
        net = self.placed(Supernet(network(self.name, self.pixels), space)).train()
        forward = torch.compile(net) if self.compiled else net
        weights = torch.optim.SGD(net.model.parameters(), lr=1e-3, momentum=0.9)
        structure = torch.optim.Adam(net.structure_parameters(), lr=5e-3)
        budget = budget_of(space, macs=SHARE).to(self.bench.device)
        net.importance.uniform_(0, 1)

        def step() -> None:
            target = net.begin_step(progress(), budget, projected=projected)
            loss = self.loss(forward)
            (loss if projected else loss + net.resource_loss(target)).backward()
            for optimizer in (weights, structure):
                optimizer.step()
                optimizer.zero_grad()
            net.update()

        return step

    def loss(self, forward: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the loss of a batch, computed in bf16."""
        with torch.autocast(self.bench.device.type, torch.bfloat16):
            scores = forward(self.images)
        return functional.cross_entropy(scores.float(), self.labels)


def agreement(bench: Bench) -> Iterator[dict[str, Any]]:
    """Masked against cut outputs on the device: single precision without TF32, and double."""
    usual = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield from differences(bench)
    finally:  # the other parts are measured as a user would
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = usual


def differences(bench: Bench) -> Iterator[dict[str, Any]]:
    """Yield a row for each network and precision."""
    for name, _, pixels in bench.cases:
        space = space_of(name, pixels)
        for dtype in (torch.float64, torch.float32):
            model = network(name, pixels).to(bench.device, dtype).eval()
            net = Supernet(model, space).to(bench.device)
            mask = space.mask(net.architecture(budget_of(space, macs=SHARE)))
            images = torch.randn(2, 3, pixels, pixels, device=bench.device, dtype=dtype)
            small = cut(model, space, space.architecture(mask)).to(bench.device)
            with torch.no_grad(), net.fixed(mask):
                masked, result = net(images), small(images)
            error = float((result - masked).norm() / masked.norm())
            yield {
                "model": name,
                "pixels": pixels,
                "setting": str(dtype).removeprefix("torch."),
                "measure": "relative difference of masked and cut",
                "value": f"{error:.2e}",
            }


def kernels(bench: Bench) -> Iterator[dict[str, Any]]:
    """Layers of the sizes that cuts produce, against double precision."""
    cases = list(cut_layers(bench.device.type))[:: 20 if bench.smoke else 1]
    faults, tried = [], 0
    for case in cases:
        if bench.late:
            break
        tried += 1
        errors = wrong(case)
        if errors:
            faults.append(f"{case}: {', '.join(f'{name} {error:.1e}' for name, error in errors.items())}")
    yield {
        "measure": "layers whose arithmetic is wrong",
        "value": len(faults),
        "n": tried,
        "note": "; ".join(faults[:5]),
    }
    if tried < len(cases):
        yield {"measure": "layers not tried", "value": len(cases) - tried, "note": "no time left"}


def steps(bench: Bench, compiled: bool = False) -> Iterator[dict[str, Any]]:
    """Search steps and steps of the cut network over plain ones, and their memory."""
    for name, batch, pixels in bench.cases:
        if bench.late:
            yield {"model": name, "note": "no time left"}
            continue
        made = Steps(bench, name, batch, pixels, compiled)
        kinds = {
            "plain": made.plain(network(name, pixels)),
            "search by penalty": made.search(projected=False),
            "search projected": made.search(projected=True),
            "cut network": made.plain(pruned(name, pixels)),
        }
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        memory = {}
        for turn in range(3 + bench.count(15)):
            if bench.late and turn > 4:
                break
            for kind, step in kinds.items():
                if bench.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                    before = torch.cuda.memory_allocated()
                seconds = bench.seconds(step)
                if bench.device.type == "cuda":
                    memory[kind] = torch.cuda.max_memory_allocated() - before
                if turn >= 3:
                    taken[kind].append(seconds)
        common = {
            "model": name,
            "batch": batch,
            "pixels": pixels,
            "setting": "bf16 compiled" if compiled else "bf16 eager",
        }
        plain = statistics.median(taken["plain"])
        yield common | {"measure": "plain step", "value": f"{plain * 1e3:.1f}", "unit": "ms", "n": len(taken["plain"])}
        for kind, seconds_of in list(taken.items())[1:]:
            ratio = statistics.median(seconds_of) / plain
            yield common | {"measure": f"{kind} / plain step", "value": f"{ratio:.3f}", "n": len(seconds_of)}
        for kind, peak in memory.items():
            yield common | {"measure": f"memory of a step, {kind}", "value": f"{peak / MIB:.0f}", "unit": "MiB"}


def compiled_steps(bench: Bench) -> Iterator[dict[str, Any]]:
    """The same with `torch.compile`."""
    yield from steps(bench, compiled=True)


def latency(bench: Bench) -> Iterator[dict[str, Any]]:
    """Inference of cut networks over that of the whole."""
    for name, _, pixels in bench.cases:
        for batch in (1, 64):
            images = torch.randn(batch, 3, pixels, pixels).to(
                bench.device, torch.bfloat16, memory_format=torch.channels_last
            )
            networks = [
                model.to(bench.device, torch.bfloat16, memory_format=torch.channels_last).eval()
                for model in (network(name, pixels), pruned(name, pixels))
            ]
            taken: tuple[list[float], list[float]] = ([], [])
            with torch.inference_mode():
                for turn in range(5 + bench.count(30)):
                    for model, seconds in zip(networks, taken, strict=True):
                        value = bench.seconds(partial(model, images))
                        if turn >= 5:
                            seconds.append(value)
            whole, small = map(statistics.median, taken)
            common = {"model": name, "batch": batch, "pixels": pixels, "setting": "bf16 eager", "n": len(taken[0])}
            yield common | {"measure": "latency of the whole", "value": f"{whole * 1e3:.3f}", "unit": "ms"}
            yield common | {"measure": f"latency of {SHARE:.0%} of the MACs / whole", "value": f"{small / whole:.3f}"}


def whole_search(bench: Bench) -> Iterator[dict[str, Any]]:
    """A search over its falling target, step by step beside as many plain steps."""
    name, batch, pixels = bench.cases[0]
    made, number = Steps(bench, name, batch, pixels, compiled=False), bench.count(120)
    done = 0
    plain = made.plain(network(name, pixels))
    search = made.search(projected=False, progress=lambda: done / number)
    totals = [0.0, 0.0]
    for _ in range(3):
        plain()
    while done < number and not bench.late:
        for kind, step in enumerate((plain, search)):
            totals[kind] += bench.seconds(step)
        done += 1
    yield {
        "model": name,
        "batch": batch,
        "pixels": pixels,
        "setting": "bf16 eager",
        "measure": "whole search / plain steps",
        "value": f"{totals[1] / totals[0]:.3f}",
        "n": done,
        "note": "" if done == number else "stopped: no time left",
    }


PARTS = {
    "agreement": agreement,
    "steps": steps,
    "latency": latency,
    "kernels": kernels,
    "whole search": whole_search,
    "compiled steps": compiled_steps,
}


def main() -> None:
    """Run all parts, or those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True, help="where the rows go")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--minutes", type=float, default=7.0, help="no part begins after them")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be given several times; by default all")
    parser.add_argument("--smoke", action="store_true", help="tiny networks: that the script works")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU that torch sees; --device cpu --smoke tries the script")
    bench = Bench(asked.csv, asked.device, asked.minutes, asked.smoke)
    hardware = torch.cuda.get_device_name() if asked.device == "cuda" else "cpu"
    bench.row(part="machine", measure=hardware, note=f"torch {torch.__version__}, timm {timm.__version__}")
    for part in asked.part or PARTS:
        begin = time.monotonic()
        if bench.late:
            bench.row(part=part, note="no time left")
            continue
        try:
            for fields in PARTS[part](bench):
                bench.row(part=part, **fields)
        except Exception as error:  # the other parts are worth their time all the same
            bench.row(part=part, note=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        bench.row(part=part, measure="all of it", value=f"{time.monotonic() - begin:.0f}", unit="s")


if __name__ == "__main__":
    main()
