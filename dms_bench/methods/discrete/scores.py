"""What each element and each block is worth to first order, in one currency for the whole network."""

from __future__ import annotations

from torch import Tensor, nn

from dms_bench.methods.agreement import of_leader
from dms_bench.methods.base import SearchContext
from dms_bench.methods.calibration import with_gradients
from dms_bench.methods.rankings.scores import block_scores, mean_scores, taylor


def taylor_scores(context: SearchContext, batches: int) -> Tensor:
    """Return |w dL/dw| of what belongs to each element, its layers' mean, and of the layers of each block, [E].

    As the ranking `taylor` has them (Molchanov et al. 2019, Fang et al. 2023), but not relative to the group's mean,
    so that units compare; the same on every worker.
    """
    space = context.space
    with with_gradients(context, batches) as model:
        scores = mean_scores(model, space, taylor, (nn.LayerNorm,))
        scores[space.width_elements :] = block_scores(model, space, taylor)
    return of_leader(scores, context.loop.device)
