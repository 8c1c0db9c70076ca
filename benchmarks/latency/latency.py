"""Are cut networks faster? Latency and MACs of networks cut to half and a quarter of their MACs.

Every width group keeps the same share (the method `uniform`), all blocks stay, weights are random. The
whole network and its cuts take turns in one process; figures are medians.

    OMP_NUM_THREADS=1 python benchmarks/latency/latency.py
    OMP_NUM_THREADS=1 python benchmarks/latency/latency.py --predict resnet50 mobilenetv2_100
    python benchmarks/latency/latency.py --device cuda --batch 1 64
    python benchmarks/latency/latency.py --plot
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from torch import Tensor, nn

from dms_bench.scaling import SearchSpace, budget_of, count, cut, find_space, measure_latency, weight_norms
from dms_bench.scaling.fit import fit_to_budget

MODELS = (
    *("resnet50", "regnety_004", "mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_b0"),
    *("convnext_atto", "deit_tiny_patch16_224"),
)
SHARES = (1.0, 0.5, 0.25)
HERE = Path(__file__).parent
PIXELS = 224
_WARM_UP = 3


def uniform(model: nn.Module, space: SearchSpace, share: float) -> nn.Module:
    """Return the network with the same share of every width group, at a share of its MACs."""
    sizes = torch.tensor(space.units.sizes, dtype=torch.float32)
    mask = fit_to_budget(space, sizes, weight_norms(model, space), budget_of(space, macs=share))
    return cut(model, space, space.architecture(mask))


def medians(networks: list[nn.Module], images: Tensor, rounds: int) -> list[float]:
    """Return the median milliseconds of a forward pass of each network; they take turns."""
    spent: list[list[float]] = [[] for _ in networks]
    with torch.inference_mode():
        for turn in range(_WARM_UP + rounds):
            for network, times in zip(networks, spent, strict=True):
                _wait(images)
                started = time.perf_counter()
                network(images)
                _wait(images)
                if turn >= _WARM_UP:
                    times.append(1e3 * (time.perf_counter() - started))
    return [median(times) for times in spent]


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize()


def supernet(name: str) -> tuple[nn.Module, Tensor, SearchSpace]:
    """Return a network with random weights, its example and its search space."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    example = torch.randn(1, 3, PIXELS, PIXELS)
    return model, example, find_space(model, example)


def measured(name: str, device: str, batches: list[int], rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a row for every batch size and share of MACs."""
    model, example, space = supernet(name)
    networks = [model, *(uniform(model, space, share) for share in SHARES[1:])]
    macs = [count(network, example).macs for network in networks]
    networks = [network.to(device) for network in networks]
    for batch in batches:
        images = torch.randn(batch, 3, PIXELS, PIXELS, device=device)
        times = medians(networks, images, rounds if batch == 1 else max(5, rounds // 3))
        for share, own, ms in zip(SHARES, macs, times, strict=True):
            yield {
                "model": name, "device": device, "batch": batch, "macs": own, "macs_share": round(own / macs[0], 4),
                "cut_to": share, "ms": round(ms, 3), "latency_share": round(ms / times[0], 4),
            }  # fmt: skip


def predicted(name: str, device: str) -> Iterator[dict[str, Any]]:
    """Yield predicted and measured latency of networks that the latency model was not fitted to."""
    model, example, space = supernet(name)
    started = time.perf_counter()
    fidelity = measure_latency(model, space, example, torch.device(device)).fidelity
    seconds = time.perf_counter() - started
    assert fidelity is not None
    print(f"{name}: R^2 {fidelity.r2:.3f}, median relative error {fidelity.error:.1%}, {seconds:.0f} s")
    for one, other in zip(fidelity.predicted, fidelity.measured, strict=True):
        yield {
            "model": name, "device": device, "predicted_ms": round(one, 3), "measured_ms": round(other, 3),
            "r2": round(fidelity.r2, 4), "median_error": round(fidelity.error, 4), "seconds": round(seconds, 1),
        }  # fmt: skip


def plot(path: Path, shown: Path) -> None:
    """Draw the share of latency over the share of MACs, a panel for each device and batch size."""
    from matplotlib.figure import Figure

    with path.open() as file:
        rows = list(csv.DictReader(file))
    panels = list(dict.fromkeys((row["device"], row["batch"]) for row in rows))
    figure = Figure(figsize=(5 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (device, batch) in zip(axes, panels, strict=True):
        for model in dict.fromkeys(row["model"] for row in rows):
            own = [row for row in rows if (row["model"], row["device"], row["batch"]) == (model, device, batch)]
            shares = [100 * float(row["macs_share"]) for row in own]
            axis.plot(shares, [100 * float(row["latency_share"]) for row in own], marker="o", label=model)
        axis.plot([0, 100], [0, 100], color="grey", linestyle=":", label="in proportion")
        axis.set(title=f"{device}, batch {batch}", xlabel="MACs [% of the whole]", xlim=(0, 104), ylim=(0, 110))
    axes[0].set_ylabel("latency [% of the whole]")
    axes[-1].legend(fontsize=8)
    figure.savefig(shown, dpi=110)


def main() -> None:
    """Measure, and write the rows beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--predict", nargs="+", default=(), help="models whose latency model is tried instead")
    parser.add_argument("--plot", action="store_true", help="only draw what was measured")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    table = options.output / "latency.csv"
    if options.plot:
        plot(table, options.output / "latency.png")
    elif options.predict:
        pairs = (row for name in options.predict for row in predicted(name, options.device))
        append(options.output / "predicted.csv", pairs)
    else:
        append(
            table,
            (row for name in options.models for row in measured(name, options.device, options.batch, options.rounds)),
        )


def append(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Add rows to a CSV as they come."""
    for row in rows:
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(*row.values())


if __name__ == "__main__":
    main()
