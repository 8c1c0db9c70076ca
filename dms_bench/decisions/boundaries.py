"""How small a p-value must be at each look at growing data, so that all looks together err at most at a given rate.

Looks are taken at Student's t of the first n differences, n = a, a + 1, ..., N. Of the error rate alpha, the first n
differences may spend alpha n / N: the spending function of Kim and DeMets (Biometrika 74, 1987) with power 1, used as
Lan and DeMets do (Biometrika 70, 1983). Here the spending is exact in few differences as well, where the usual
recursion for normal statistics (Armitage, McPherson and Rowe, 1969) is not:

Of independent normal differences x_1, x_2, ... with mean 0, let c_n be the cosine of the angle between (x_1, ..., x_n)
and (1, ..., 1); then t_n = c_n sqrt((n - 1) / (1 - c_n^2)). The path c_1, ..., c_n does not depend on the scale of the
differences, so it is independent of the sum of their squares (Basu's theorem), and with it of x_{n+1} divided by that
sum's root, the tangent of an angle f. Hence c is a Markov chain,

    c_{n+1} = (sqrt(n) c_n cos f + sin f) / sqrt(n + 1),   sqrt(n) tan f ~ Student's t with n degrees of freedom,

which is followed on a grid of normal scores: z_n = quantile of the normal distribution at the probability of t_n.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

#: The grid: scores from -6 to 6 in steps of 0.025. What lies outside is in its first and last cell.
_EDGES = np.linspace(-6.0, 6.0, 481)
_MIDDLES = (_EDGES[:-1] + _EDGES[1:]) / 2
#: Angles at which their distribution is tabled.
_ANGLES = np.linspace(-np.pi / 2, np.pi / 2, 8001)


@lru_cache(maxsize=64)
def levels(at_least: int, at_most: int, alpha: float, *, two_sided: bool) -> tuple[float, ...]:
    """Return the p-value at or below which a test rejects after n differences.

    Args:
        at_least: differences at the first look, at least 2.
        at_most: differences at the last look.
        alpha: probability that any look rejects a true hypothesis, when the differences are normal.
        two_sided: of the test; a one-sided one rejects large values of t.

    Returns:
        For n = 0, 1, ..., `at_most`; 0 before the first look, and where nothing is small enough.
    """
    nominal = [0.0] * at_least
    masses = np.diff(ndtr(_EDGES))  # whatever n is
    spent = 0.0
    for n in range(at_least, at_most + 1):
        if n > at_least:
            masses = masses @ _step(n - 1)
        cell, leaving = _outermost(masses, alpha * n / at_most - spent, two_sided)
        spent += leaving
        nominal.append((2 if two_sided else 1) * float(ndtr(-_EDGES[cell])) if cell < len(masses) else 0.0)
        masses[cell:] = 0.0
        if two_sided:
            masses[: len(masses) - cell] = 0.0
    return tuple(nominal)


def _outermost(masses: np.ndarray, amount: float, two_sided: bool) -> tuple[int, float]:
    """Return the first cell that ends the test, so that no more than `amount` leaves, and how much does leave."""
    tails = np.cumsum((masses + masses[::-1] if two_sided else masses)[::-1])
    cells = int(np.searchsorted(tails, amount, side="right"))
    cells = min(cells, len(masses) // 2 - 1)
    return len(masses) - cells, float(tails[cells - 1]) if cells else 0.0


@lru_cache(maxsize=64)
def _step(n: int) -> np.ndarray:
    """Return the probabilities of the scores after n + 1 differences, given those after n: shape (cells, cells)."""
    cosines = _cosine(_MIDDLES, n)[:, None]
    edges = _cosine(_EDGES, n + 1)[None, :]
    angle = np.arctan2(np.sqrt(n) * cosines, 1.0)
    # sqrt(n) c cos f + sin f = r sin(f + angle), which is at most the edge where f + angle is not between b and pi - b.
    ratio = edges * np.sqrt(n + 1) / np.sqrt(1 + n * cosines**2)
    b = np.arcsin(np.clip(ratio, -1.0, 1.0))
    table = stdtr(n, np.sqrt(n) * np.tan(_ANGLES))
    table[0], table[-1] = 0.0, 1.0

    def below(angles: np.ndarray) -> np.ndarray:
        return np.asarray(np.interp(angles, _ANGLES, table))

    cumulative = below(b - angle) - below(-np.pi - b - angle) + 1.0 - below(np.pi - b - angle)
    cumulative[:, 0], cumulative[:, -1] = 0.0, 1.0
    return np.diff(np.maximum.accumulate(cumulative, axis=1), axis=1)


def _cosine(scores: np.ndarray, n: int) -> np.ndarray:
    """Return c_n of normal scores."""
    # The lower half is computed and mirrored: probabilities near 1 lose their digits.
    t = -np.sign(scores) * stdtrit(n - 1, ndtr(-np.abs(scores)))
    return np.asarray(t / np.sqrt(t**2 + n - 1))
