"""The phases of a search: observe, let the target fall, refine the widths."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """When the phases of a search end, as shares of its steps.

    First nothing is decided: masks are 1, ratios stay as they are, the importance is collected and the target is the
    whole supernet's cost. Then the target falls (equation 10); widths and depth follow. Once it has arrived the depth
    is frozen, and widths alone are refined, because a block that goes makes the cost jump. With `depth`, the depth
    alone follows the target at first, at full width, and the widths do after it.

    Attributes:
        observe: end of the first phase. Without it the first batch decides which block goes first, as what is masked
            has less importance ever after. After some twenty steps it tells no more than any other batch.
        decay: end of the second.
        depth: when the depth is frozen, if it is decided before the widths.
        freezes: whether the depth is frozen at all before the search ends.
    """

    observe: float = 0.2
    decay: float = 0.8
    depth: float | None = None
    freezes: bool = True

    @property
    def depth_decided(self) -> float:
        """When the depth is frozen."""
        if not self.freezes:
            return math.inf
        return self.decay if self.depth is None else self.depth

    def __post_init__(self) -> None:
        if self.depth is not None and not self.observe < self.depth <= self.decay:
            raise ValueError(
                f"the depth cannot be decided at {self.depth}: after observing, {self.observe}, and not after the "
                f"target has fallen, {self.decay}"
            )
        if not 0 <= self.observe < self.decay <= 1:
            raise ValueError(f"phases cannot end at {self.observe} and {self.decay}: 0 <= observe < decay <= 1")


def falling_target(
    supernet: float, final: float, progress: float, decay_share: float, observe_share: float = 0.0
) -> float:
    """Equation (10): the target falls exponentially from the supernet's cost to the final one.

    Args:
        supernet: cost of the whole supernet.
        final: cost that is asked for.
        progress: finished share of the search, in [0, 1].
        decay_share: share of the search after which the final target holds.
        observe_share: share of the search before which it does not fall.
    """
    fallen = min(max((progress - observe_share) / (decay_share - observe_share), 0.0), 1.0)
    return supernet * math.exp(math.log(final / supernet) * fallen)
