"""What the tests of detection share: small networks, few scenes, a loop in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench.scaling import SearchSpace, cut, find_space
from dms_bench_tasks.detection.spec import DetectionRecipe, DetectionTask
from dms_bench_tasks.detection.task import Detection
from tests.unit.classification import classification_helpers

CPU = torch.device("cpu")
#: YOLOv8 with eight channels and up, and two bottlenecks in its longer stages.
TINY = SupernetSpec(model="yolov8.yaml", args={"depth_multiple": 0.34, "width_multiple": 0.125})
SCENES = {"name": "glyph-scenes", "train": 24, "val": 8, "test": 8, "classes": 3, "objects": 3, "difficulty": 0.2}
FAST = {"batch_size": 8, "nbs": 8, "optimizer": "AdamW", "lr0": 0.002, "momentum": 0.9, "warmup_epochs": 0}


def task(seed: int = 0, **data: Any) -> Detection:
    return Detection(DetectionTask(data={**SCENES, **data}, image_size=64), seed)


def recipe(epochs: int = 2, **options: Any) -> DetectionRecipe:
    return DetectionRecipe.model_validate({"epochs": epochs, **FAST, **options})


class MemoryLoop(classification_helpers.MemoryLoop):
    """The same, with a folder, which Ultralytics' trainer writes to."""

    def __init__(self, folder: Path, state: dict[str, Any] | None = None, stop: int = 0) -> None:
        super().__init__(state, stop=stop)
        self.folder = folder


def random_mask(space: SearchSpace, seed: int = 0, least: float = 0.3, most: float = 0.7) -> torch.Tensor:
    """Keep a random share of every unit."""
    generator = torch.Generator().manual_seed(seed)
    mask, units = space.full(), space.units
    for start, size, low in zip(units.starts, units.sizes, units.minimum, strict=True):
        share = least + (most - least) * float(torch.rand(1, generator=generator))
        keeps = max(low, int(size * share))
        mask[start + torch.randperm(size, generator=generator)[keeps:]] = 0
    return mask


def cut_at_random(network: nn.Module, example: torch.Tensor, seed: int = 0) -> nn.Module:
    space = find_space(network, example)
    return cut(network, space, space.architecture(random_mask(space, seed)))


def lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms statistics of their own, as training does."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.3, 0.3, generator=generator)
    return network.eval()
