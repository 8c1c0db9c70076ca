"""How far a network's predictions are from the supernet's.

Shape legend:
    R: predictions of a batch: images, or positions of sequences
    K: classes, or tokens of a vocabulary
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench.methods.base import SearchContext
from dms_bench.methods.calibration import watched
from dms_bench.scaling.modules.modes import modes_kept
from dms_bench.tasks import Task


def check_softmax(task: Task, option: str) -> None:
    """Refuse a divergence where a task's outputs are not the logits of one softmax.

    Args:
        task: what is trained for; it says where its classes lie (`class_axis`).
        option: what asks for the divergence, as a suite writes it.

    Raises:
        UserError: the task does not say.
    """
    if _class_axis(task) is None:
        raise UserError(
            f"{option} compares predictions of one softmax, and this task's outputs are none (its class has no "
            "class_axis)"
        )


def divergence(context: SearchContext, network: nn.Module, batches: int) -> float:
    """Return the mean KL(supernet || network) of the predictions on calibration batches, in nats.

    Both run side by side, in eval mode without gradients: what a supernet predicts for a vocabulary on all batches may
    be more than fits into memory. All predictions count alike, those of positions at which a loss asks for nothing too.

    Args:
        context: the search, whose supernet is compared with.
        network: of the same inputs and outputs.
        batches: how many.
    """
    task, device, axis = context.task, context.loop.device, _class_axis(context.task)
    assert axis is not None
    networks = {"whole": context.model.to(device), "other": network.to(device)}
    seen: dict[str, Tensor] = {}
    total, predictions = 0.0, 0
    with modes_kept(networks["whole"]), modes_kept(networks["other"]), torch.no_grad():
        for model in networks.values():
            model.eval()
        with watched(networks, lambda name, x, output: seen.update({name: output})):
            losses = [task.losses(model, batches, device) for model in networks.values()]
            for _ in zip(*losses, strict=True):
                log_whole, log_other = (seen[name].float().log_softmax(axis) for name in networks)
                total += float((log_whole.exp() * (log_whole - log_other)).sum(dtype=torch.double))
                predictions += log_whole.numel() // log_whole.size(axis)
                context.loop.tick()
    return total / predictions


def _class_axis(task: Task) -> int | None:
    axis: int | None = getattr(task, "class_axis", None)
    return axis
