"""The differentiable top-k as it is defined, element by element: slow, obvious, independent of the code.

Of N elements a pruning ratio a keeps the k = round((1 - a) N) most important, and an element's soft mask is a sigmoid
of slope lambda in a that is 1/2 at the ratio at which the element goes: where (1 - a) N passes from what rounds to
more than the number of elements above it to what rounds to no more, (1 - a) N = above + 1/2.
"""

from __future__ import annotations

import math


def kept(size: int, ratio: float) -> int:
    """Return k = round((1 - a) N); a tie keeps one more."""
    return math.floor((1 - ratio) * size + 0.5)


def goes_at(importance: list[float]) -> list[float]:
    """Return the pruning ratio at which each element goes, for distinct importances."""
    n = len(importance)
    above = [sum(1 for other in importance if other > own) for own in importance]
    return [1 - (more + 0.5) / n for more in above]


def slope(size: int, temperature: float, steep: bool) -> float:
    """Return lambda: N for widths, 4 N for heads, coarse runs and blocks, 8 for a unit of one element."""
    return temperature * (8.0 if size == 1 else 4.0 * size if steep else float(size))


def mask(importance: list[float], ratio: float, slope: float) -> list[float]:
    """Equation (3)."""
    return [1 / (1 + math.exp(-slope * (threshold - ratio))) for threshold in goes_at(importance)]


def mask_gradient(importance: list[float], ratio: float, slope: float) -> list[float]:
    """dm_i/da = -lambda (1 - m_i) m_i."""
    return [-slope * (1 - value) * value for value in mask(importance, ratio, slope)]


def taylor(previous: float, value: float, gradient: float, decay: float) -> float:
    """Equation (4)."""
    return decay * previous + (1 - decay) * (value * gradient) ** 2


def resource_loss(cost: float, target: float) -> float:
    """Equation (6)."""
    return math.log(cost / target) if cost > target else 0.0
