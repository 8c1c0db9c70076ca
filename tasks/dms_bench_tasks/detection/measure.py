"""Mean average precision by Ultralytics' own validator, and statistics of batch norms.

Import after `offline.set_up`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from ultralytics.engine import validator as engine
from ultralytics.models.yolo.detect import DetectionValidator, val

from dms_bench.scaling import count
from dms_bench.scaling.modules.modes import modes_kept
from dms_bench_tasks.detection.model import Detector, example_input, fused
from dms_bench_tasks.detection.offline import quiet
from dms_bench_tasks.detection.paced_loader import PacedLoader
from dms_bench_tasks.detection.portable import portable

#: Images that are evaluated at once.
BATCH = 32


def evaluate(detector: Detector, data: Path, split: str, size: int, device: torch.device) -> dict[str, float]:
    """Measure a network as `YOLO("best.pt").val(...)` measures its exported form.

    Args:
        detector: the network.
        data: the data YAML.
        split: `val` or `test`.
        size: height and width of the input.
        device: where.

    Returns:
        `map50_95` and `map50` in percent, and the cost of the network with batch norms folded in, without
        what is used in training only: `macs_fused` and `params_fused`.
    """
    model = portable(detector.cpu())
    with TemporaryDirectory() as folder:
        options = {
            **{"data": str(data), "split": split, "imgsz": size, "batch": BATCH, "device": str(device)},
            **{"mode": "val", "task": "detect", "rect": True, "plots": False, "verbose": False},
        }
        with quiet(), _alone():
            results = _Validator(save_dir=Path(folder), args=options)(model=model)
    cost = count(fused(detector), example_input(1, size))
    return {**percent(results), "macs_fused": float(cost.macs), "params_fused": float(cost.params)}


class _Validator(DetectionValidator):  # type: ignore[misc]
    """Ultralytics' validator, over whose loader a rehearsal looks on."""

    def get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loader of a split."""
        return PacedLoader(super().get_dataloader(*args, **kwargs))


@contextmanager
def _alone() -> Iterator[None]:
    """Let the leader of several workers measure by itself.

    Ultralytics reads a process's rank once, on import, and its validator waits for all others by it.
    """
    variables = [(module, name) for module in (engine, val) for name in ("RANK", "LOCAL_RANK") if hasattr(module, name)]
    before = [getattr(module, name) for module, name in variables]
    try:
        for module, name in variables:
            setattr(module, name, -1)
        yield
    finally:
        for (module, name), rank in zip(variables, before, strict=True):
            setattr(module, name, rank)


def percent(results: dict[str, float]) -> dict[str, float]:
    """Return the two measures among those of Ultralytics' validator."""
    return {"map50_95": 100 * results["metrics/mAP50-95(B)"], "map50": 100 * results["metrics/mAP50(B)"]}


@torch.no_grad()
def recalibrate(model: Callable[[Tensor], object], detector: Detector, batches: Iterable[Tensor]) -> None:
    """Estimate batch norm's statistics anew, as the plain average over batches of images.

    Args:
        model: what is run.
        detector: the network in it.
        batches: images [batch, 3, height, width].
    """
    norms = [module for module in detector.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    with modes_kept(detector):
        detector.eval()
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # cumulative average
                norm.train()
            for images in batches:
                model(images)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
