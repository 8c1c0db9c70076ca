"""How good a smaller network of a space is as it is cut out, with the supernet's weights."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dms_bench.methods.agreement import of_leader
from dms_bench.methods.base import SearchContext
from dms_bench.methods.calibration import look
from dms_bench.methods.divergence import divergence
from dms_bench.scaling import cut


class Judge:
    """Measures cut networks on calibration batches; less is better, and every worker has the same number.

    Networks are cut instead of masked: they cost less to run, and their batch-norm statistics can be estimated anew
    without touching the supernet's, as they are before a network is measured at the end of a trial.

    Args:
        context: the search.
        by: the task's loss, or the divergence from the supernet's predictions.
        images: training samples for batch norm's statistics.
    """

    def __init__(self, context: SearchContext, by: Literal["loss", "kl"], images: int) -> None:
        self.context, self.by, self.images = context, by, images

    def __call__(self, mask: Tensor, batches: int) -> float:
        """Return the mean loss, or the divergence in nats, of the network that a binary mask [E] leaves.

        Where it is no number, the network is worse than any other: infinity.
        """
        context, device = self.context, self.context.loop.device
        network = cut(context.model, context.space, context.space.architecture(mask)).to(device)
        context.task.recalibrate(network, device, self.images)
        value = divergence(context, network, batches) if self.by == "kl" else look(context, batches, network)
        value = math.inf if math.isnan(value) else value
        return float(of_leader(torch.tensor(value, dtype=torch.double), device))
