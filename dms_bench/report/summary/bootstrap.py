"""Interquartile means and probabilities of improvement, with intervals from a stratified bootstrap.

Definitions of Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice (NeurIPS 2021),
sections 4.1 and 4.3: seeds are drawn anew within each task, here the same for all methods, as a seed's noise is theirs
together; the middle half of all scores is averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

_RESAMPLES = 2000
_SEED = 0
_PERCENTILES = (2.5, 97.5)


class Interval(NamedTuple):
    """A number with its 95 % interval; None where no task has two seeds."""

    value: float
    low: float | None
    high: float | None


def interquartile_mean(scores: Any) -> Any:
    """Return the mean of the middle half along the last axis: a quarter, rounded down, is cut off at both ends."""
    import numpy

    ordered = numpy.sort(scores, axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def interquartile_means(tasks: Sequence[Any]) -> list[Interval]:
    """Return the interquartile mean of every method over all tasks and seeds.

    Args:
        tasks: scores (methods, seeds) of each task.
    """
    import numpy

    def of(method: int) -> Callable[[Sequence[Any]], Any]:
        return lambda drawn: interquartile_mean(numpy.concatenate([scores[method] for scores in drawn], axis=-1))

    return [_interval(tasks, of(method)) for method in range(len(tasks[0]))]


def improvements(tasks: Sequence[Any], control: int) -> list[Interval]:
    """Return for every method how often it is ahead of the control.

    The mean over tasks of the share of pairs of runs in which its score is the higher one; ties count as half.

    Args:
        tasks: scores (methods, seeds) of each task; larger is better.
        control: place of the method to be compared with.
    """

    def of(method: int) -> Callable[[Sequence[Any]], Any]:
        return lambda drawn: sum(_ahead(scores[method], scores[control]) for scores in drawn) / len(drawn)

    return [_interval(tasks, of(method)) for method in range(len(tasks[0]))]


def _ahead(ours: Any, theirs: Any) -> Any:
    first, second = ours[..., :, None], theirs[..., None, :]
    return ((first > second) + 0.5 * (first == second)).mean(axis=(-1, -2))


def _interval(tasks: Sequence[Any], statistic: Callable[[Sequence[Any]], Any]) -> Interval:
    import numpy

    value = float(statistic(tasks))
    if all(scores.shape[1] < 2 for scores in tasks):
        return Interval(value, None, None)
    generator = numpy.random.default_rng(_SEED)  # every method sees the same draws
    drawn = []
    for scores in tasks:
        seeds = scores.shape[1]
        drawn.append(scores[:, generator.integers(seeds, size=(_RESAMPLES, seeds))])
    low, high = numpy.percentile(statistic(drawn), _PERCENTILES)
    return Interval(value, float(low), float(high))
