"""Equations (2) to (6) of the paper written out element by element: slow, obvious, independent."""

from __future__ import annotations

import math


def normalised_rank(importance: list[float]) -> list[float]:
    """Equation (2)."""
    n = len(importance)
    return [sum(1 for other in importance if own > other) / n for own in importance]


def mask(importance: list[float], ratio: float, slope: float) -> list[float]:
    """Equation (3)."""
    return [1 / (1 + math.exp(-slope * (rank - ratio))) for rank in normalised_rank(importance)]


def mask_gradient(importance: list[float], ratio: float, slope: float) -> list[float]:
    """dm_i/da = -lambda (1 - m_i) m_i."""
    return [-slope * (1 - value) * value for value in mask(importance, ratio, slope)]


def taylor(previous: float, value: float, gradient: float, decay: float) -> float:
    """Equation (4)."""
    return decay * previous + (1 - decay) * (value * gradient) ** 2


def resource_loss(cost: float, target: float) -> float:
    """Equation (6)."""
    return math.log(cost / target) if cost > target else 0.0
