"""The falling resource target."""

from __future__ import annotations

import math


def falling_target(supernet: float, final: float, progress: float, decay_share: float) -> float:
    """Equation (10): the target falls exponentially from the supernet's cost to the final one.

    Args:
        supernet: cost of the whole supernet.
        final: cost that is asked for.
        progress: finished share of the search, in [0, 1].
        decay_share: share of the search after which the final target holds. What follows refines
            widths with the depth fixed, because a block that goes makes the cost jump.
    """
    return supernet * math.exp(math.log(final / supernet) * min(progress / decay_share, 1.0))
