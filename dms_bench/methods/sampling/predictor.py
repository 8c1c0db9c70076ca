"""A network that predicts the measure of a subnet from its sizes, as once-for-all networks are searched.

Subnets of any cost are drawn from the whole space and measured with shared weights; what was learnt from them
does not depend on the budget. That time is charged to the stage `predictor`, which is public cost.

Shape legend:
    n: architectures measured
    U: searched units (width groups, then stages)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.neural_network import MLPRegressor

from dms_bench.methods.base import SearchContext
from dms_bench.scaling import Architecture, SearchSpace
from dms_bench.scaling.structure.subnets import leading, random_counts

#: Measures an architecture.
Scorer = Callable[[Architecture], float]
#: Three hidden layers with ReLU (Cai et al. 2020).
LAYERS = (400, 400, 400)
HELD_OUT = 0.2


def predictor(context: SearchContext, samples: int, measured: Scorer) -> Scorer:
    """Return a scorer that predicts `measured`; the rank correlation on held-out subnets becomes a metric.

    Args:
        context: the search.
        samples: subnets that are measured, n; the last fifth is held out.
        measured: the score to predict.
    """
    space = context.space
    with context.stage("predictor"):
        generator = context.generator()
        drawn = [leading(space.units, random_counts(space.units, generator)) for _ in range(samples)]
        architectures = [space.architecture(mask) for mask in drawn]
        values = []
        for architecture in architectures:
            values.append(measured(architecture))
            context.loop.tick()
        features, targets = np.stack([encoded(space, architecture) for architecture in architectures]), np.array(values)
        fitted_on = samples - max(2, round(HELD_OUT * samples))
        model = Regression(features[:fitted_on], targets[:fitted_on], context.trial.seed)
        predicted = model(features[fitted_on:])
        metrics = {
            "predictor_kendall": _correlation(stats.kendalltau, predicted, targets[fitted_on:]),
            "predictor_spearman": _correlation(stats.spearmanr, predicted, targets[fitted_on:]),
            "predictor_samples": float(samples),
        }
    context.loop.epoch_done(1, metrics, {})
    return lambda architecture: float(model(encoded(space, architecture)[None])[0])


def encoded(space: SearchSpace, architecture: Architecture) -> NDArray[np.float64]:
    """Return the share that each unit keeps, [U]."""
    return np.array([kept / size for kept, size in space.sizes_of(architecture).values()])


def _correlation(rank: Callable[..., Any], predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> float:
    """Return a rank correlation; 0 where all values of a side are equal, which order nothing."""
    return float(rank(predicted, measured).statistic) if np.ptp(predicted) and np.ptp(measured) else 0.0


class Regression:
    """The predictor: targets are standardised, so that the optimiser's step suits any measure."""

    def __init__(self, features: NDArray[np.float64], targets: NDArray[np.float64], seed: int) -> None:
        self.mean, self.deviation = targets.mean(), targets.std() or 1.0
        self.network = MLPRegressor(hidden_layer_sizes=LAYERS, random_state=seed, max_iter=500)
        self.network.fit(features, (targets - self.mean) / self.deviation)

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predict, [n] from [n, U]."""
        predicted: NDArray[np.float64] = self.network.predict(features) * self.deviation + self.mean
        return predicted
