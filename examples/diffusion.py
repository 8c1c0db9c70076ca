"""Search the U-Net of a diffusion model of diffusers, cut it to a third of its MACs, finetune and export it.

    pip install diffusers
    python examples/diffusion.py

The U-Net learns to take the noise off handwritten digits of scikit-learn, of 16 pixels. It takes some minutes on two
cores and ends with the mean squared error of the noise that it predicts, before and after; the cut network
has trained for longer, as search and finetuning go on from the whole one.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.scaling import Supernet, budget_of, count, cut

BATCH, TIMES = 32, 200
SCHEDULER = DDPMScheduler(num_train_timesteps=TIMES)


def noisy(digits: Tensor, number: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return noisy digits [number, 1, 16, 16], how far the noise has come [number], and the noise."""
    generator = torch.Generator().manual_seed(seed)
    chosen = digits[torch.randint(len(digits), (number,), generator=generator)]
    noise = torch.randn(chosen.shape, generator=generator)
    times = torch.randint(TIMES, (number,), generator=generator)
    return SCHEDULER.add_noise(chosen, noise, times), times, noise


def train(model: nn.Module, digits: Tensor, steps: int, search: float | None = None) -> nn.Module:
    """Train a network; with `search`, search it for that share of its MACs and return what is cut out."""
    net = Supernet(model, noisy(digits, 2, 0)[:2]) if search else None
    weights = torch.optim.AdamW(model.parameters(), lr=1e-3)
    structure = torch.optim.Adam(net.structure_parameters(), lr=5e-2) if net else None
    budget = budget_of(net.space, macs=search) if net and search else None
    model.train()
    for step in range(steps):
        images, times, noise = noisy(digits, BATCH, step)
        target = net.begin_step(step / steps, budget) if net and budget else None
        loss = functional.mse_loss((net or model)(images, times).sample, noise)
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
def error(model: nn.Module, digits: Tensor) -> float:
    """Return the mean squared error of the predicted noise."""
    images, times, noise = noisy(digits, 256, 10**6)
    return float(functional.mse_loss(model.eval()(images, times).sample, noise))


class Noise(nn.Module):
    """What is exported: noisy pictures and times in, the noise out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        """Return the noise in pictures, of their shape."""
        noise: Tensor = self.model(images, times, return_dict=False)[0]
        return noise


def main(steps: int, folder: Path) -> dict[str, float]:
    """Run the example; return the figures that it prints."""
    torch.manual_seed(0)
    small_digits = torch.tensor(load_digits().images / 8 - 1, dtype=torch.float).unsqueeze(1)
    digits = functional.interpolate(small_digits, scale_factor=2, mode="bilinear")
    known, unseen = digits[:1400], digits[1400:]
    network = UNet2DModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    example = noisy(unseen, 1, 0)[:2]
    whole = train(network, known, steps)
    figures = {"macs": count(whole, example).macs, "error": error(whole, unseen)}
    small = train(train(copy.deepcopy(whole), known, steps, search=1 / 3), known, steps // 2)
    figures |= {"small macs": count(small, example).macs, "small error": error(small, unseen)}
    print(
        f"whole: {figures['macs'] / 1e6:.0f} M MACs, error {figures['error']:.4f}; "
        f"cut: {figures['small macs'] / 1e6:.0f} M MACs, error {figures['small error']:.4f}"
    )
    program = torch.export.export(Noise(small).eval(), example)  # opens with torch alone
    torch.export.save(program, folder / "diffusion.pt2")
    print(f"wrote {folder / 'diffusion.pt2'}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="optimiser steps of the training and of the search")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for the exported network")
    options = parser.parse_args()
    main(options.steps, options.output)
