"""Accuracy and loss of a network on a split, and the statistics of its batch norms."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dms_bench.scaling.modules.modes import modes_kept
from dms_bench_tasks.classification.data import Batch
from dms_bench_tasks.common.sharding import WHOLE, Shard


@torch.no_grad()
def measure(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    shard: Shard = WHOLE,
    tick: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Measure in eval mode, over all workers' batches; the model's mode is restored.

    Returns:
        `top1` and, with more than five classes, `top5` in percent, the mean cross entropy `loss`, and
        the number of images `n`.
    """
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    classes = 0
    with modes_kept(model):
        model.eval()
        for images, labels in batches:
            scores = model(images).float()
            classes = scores.shape[1]
            best = scores.topk(min(5, classes)).indices == labels[:, None]
            loss = F.cross_entropy(scores, labels, reduction="sum")
            sums += torch.stack([best[:, 0].sum(), best.sum(), loss, torch.as_tensor(len(labels))]).to(sums)
            if tick is not None:
                tick()
    if shard.count > 1:
        dist.all_reduce(sums)
    top1, top5, loss, n = sums.tolist()
    result = {"top1": 100 * top1 / n, "loss": loss / n, "n": n}
    return result | ({"top5": 100 * top5 / n} if classes > 5 else {})


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Estimate batch norm's statistics anew, as the plain average over `batches`."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
            norm.train()
        largest = 0
        for images, _ in batches:
            largest = max(largest, len(images))
            if len(images) == largest:  # a small last batch would count as much as a whole one
                model(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
