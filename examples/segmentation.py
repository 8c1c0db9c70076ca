"""Search a U-Net of segmentation_models_pytorch, cut it to a third of its MACs, finetune and export it.

    pip install segmentation-models-pytorch
    python examples/segmentation.py

The pictures are handwritten digits of scikit-learn on a noisy ground; the U-Net marks the pixels of their strokes.
It takes a minute on two cores and ends with the intersection over union before and after; the cut network
has trained for longer, as search and finetuning go on from the whole one.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.scaling import Supernet, budget_of, count, cut

SIZE, BATCH = 64, 16


def pictures(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return pictures [number, 1, 64, 64] with three digits each, and which pixels are strokes, of the same shape."""
    digits = torch.tensor(load_digits().images / 16, dtype=torch.float)
    generator = np.random.default_rng(seed)
    ground = torch.tensor(generator.uniform(0, 0.6, (number, 1, SIZE, SIZE)), dtype=torch.float)
    strokes = torch.zeros_like(ground)
    for picture in strokes:
        for digit in generator.integers(len(digits), size=3):
            large = functional.interpolate(digits[None, None, digit], scale_factor=2.5, mode="bilinear")[0, 0]
            top, left = generator.integers(SIZE - len(large), size=2)
            place = picture[0, top : top + len(large), left : left + len(large)]
            place.copy_(torch.maximum(place, large))
    return (ground + 0.5 * strokes).clamp(0, 1), (strokes > 0.5).float()


def train(model: nn.Module, data: tuple[Tensor, Tensor], steps: int, search: float | None = None) -> nn.Module:
    """Train a network; with `search`, search it for that share of its MACs and return what is cut out."""
    net = Supernet(model, data[0][:2]) if search else None
    weights = torch.optim.AdamW(model.parameters(), lr=1e-3)
    structure = torch.optim.Adam(net.structure_parameters(), lr=5e-2) if net else None
    budget = budget_of(net.space, macs=search) if net and search else None
    model.train()
    for step in range(steps):
        chosen = torch.randint(len(data[0]), (BATCH,), generator=torch.Generator().manual_seed(step))
        images, targets = data[0][chosen], data[1][chosen]
        target = net.begin_step(step / steps, budget) if net and budget else None
        loss = functional.binary_cross_entropy_with_logits((net or model)(images), targets)
        if net and target:
            loss = loss + net.resource_loss(target)
        loss.backward()
        for optimizer in filter(None, (weights, structure)):
            optimizer.step()
            optimizer.zero_grad()
        if net:
            net.update()
    return cut(model, net.space, net.architecture(budget)) if net and budget else model


@torch.no_grad()
def overlap(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Return the intersection over union of marked and true strokes."""
    marked, true = model.eval()(data[0]) > 0, data[1] > 0
    return float((marked & true).sum() / (marked | true).sum())


def main(steps: int, folder: Path) -> dict[str, float]:
    """Run the example; return the figures that it prints."""
    torch.manual_seed(0)
    known, unseen = pictures(400, seed=0), pictures(100, seed=1)
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=1, decoder_channels=(64, 48, 32, 24, 16))
    whole = train(network, known, steps)
    figures = {"macs": count(whole, known[0][:1]).macs, "iou": overlap(whole, unseen)}
    small = train(train(copy.deepcopy(whole), known, steps, search=1 / 3), known, steps // 2)
    figures |= {"small macs": count(small, known[0][:1]).macs, "small iou": overlap(small, unseen)}
    print(
        f"whole: {figures['macs'] / 1e6:.0f} M MACs, IoU {figures['iou']:.3f}; "
        f"cut: {figures['small macs'] / 1e6:.0f} M MACs, IoU {figures['small iou']:.3f}"
    )
    program = torch.export.export(small, (unseen[0][:1],))  # opens with torch alone
    torch.export.save(program, folder / "segmentation.pt2")
    print(f"wrote {folder / 'segmentation.pt2'}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="optimiser steps of the training and of the search")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for the exported network")
    options = parser.parse_args()
    main(options.steps, options.output)
