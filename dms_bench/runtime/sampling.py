"""Sampled sweeps: which samples were drawn, what they came to, and which is next.

Every sample is written down when it is drawn, so that the same command goes on with the same
samples: finished ones inform the sampler, unfinished ones are continued, new ones are drawn.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dms_bench.config import (
    Experiment,
    InvalidSpecError,
    Range,
    Sampling,
    Suite,
    Trial,
    resolve_sample,
    sample_space,
    sampled,
)
from dms_bench.trial.storage import write_atomic

_log = logging.getLogger(__name__)

#: Draws without a new sample after which the space counts as exhausted.
_PATIENCE = 200


@dataclass
class SampledSweep:
    """The samples of one experiment at one point of its grid.

    Attributes:
        suite: the suite.
        experiment: an experiment with a sampled sweep.
        point: dotted field -> value of the grid.
        folder: where the suite keeps its files.
    """

    suite: Suite
    experiment: Experiment
    point: Mapping[str, Any]
    folder: Path
    #: Sampled parameters in the order in which they were drawn; choices by their position.
    drawn: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        path = self._path
        self.drawn = json.loads(path.read_text()) if path.exists() else []

    @property
    def sampling(self) -> Sampling:
        """How to sample."""
        assert self.experiment.sweep.sample is not None
        return self.experiment.sweep.sample

    @cached_property
    def example(self) -> Trial:
        """A trial of the sweep: the first choices, the lower bounds."""
        space = sample_space(self.experiment)
        return self.trial({name: values.low if isinstance(values, Range) else 0 for name, values in space.items()})

    @property
    def trials(self) -> list[Trial]:
        """The trials drawn so far, as many as are wanted."""
        return self.all_drawn[: self.sampling.samples]

    @property
    def all_drawn(self) -> list[Trial]:
        """The trials drawn so far, also those of a time when more were wanted."""
        return [self.trial(parameters) for parameters in self.drawn]

    def trial(self, parameters: Mapping[str, Any]) -> Trial:
        """Return the trial of sampled parameters."""
        space = sample_space(self.experiment)
        values = {
            name: value if isinstance(space[name], Range) else _choice(space[name], value)
            for name, value in parameters.items()
        }
        return resolve_sample(self.suite, self.experiment, self.point, values)

    def note(self, parameters: dict[str, Any]) -> None:
        """Write a new sample down."""
        self.drawn.append(parameters)
        write_atomic(self._path, json.dumps(self.drawn))

    def forget(self) -> None:
        """Forget what was drawn, which is then drawn anew."""
        self.drawn.clear()
        self._path.unlink(missing_ok=True)

    @cached_property
    def _path(self) -> Path:
        """The list's file; another space, sampler or experiment has another one, more samples have the same."""
        content: list[Any] = [self.experiment.model_dump(mode="json"), dict(self.point)]
        content[0]["sweep"]["sample"].pop("samples")
        content[0]["sweep"].pop("grid")
        former = self._named(content)  # in versions before, in which it depended on where data lie
        content[0] |= {"task": self.example.task.identity().model_dump(mode="json"), "resources": None}
        return former if former.exists() else self._named(content)

    def _named(self, content: list[Any]) -> Path:
        text = json.dumps(content, sort_keys=True, default=str)
        return self.folder / "samples" / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"


class Sampler:
    """Draws the samples of a sweep that are still to be run, informed by those that are finished."""

    def __init__(self, sweep: SampledSweep, finished: Mapping[str, float | None], higher_is_better: bool) -> None:
        """Take up the sweep where it stands.

        Args:
            sweep: the sweep.
            finished: trial hash -> value on the validation split (None where it failed) of what needs no run.
            higher_is_better: direction of the value.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        kind = optuna.samplers.RandomSampler if sweep.sampling.algorithm == "random" else optuna.samplers.TPESampler
        self._study = optuna.create_study(
            direction="maximize" if higher_is_better else "minimize", sampler=kind(seed=sweep.sampling.seed)
        )
        self._distributions = {name: _distribution(values) for name, values in sample_space(sweep.experiment).items()}
        self._sweep = sweep
        self._asked: dict[str, Any] = {}
        self._queue: list[dict[str, Any]] = []
        self._hashes: set[str] = set()
        for parameters in sweep.drawn[: sweep.sampling.samples]:
            key = sweep.trial(parameters).hash
            self._hashes.add(key)
            if key not in finished:
                self._queue.append(parameters)
            elif finished[key] is not None:
                self._study.add_trial(
                    optuna.trial.create_trial(params=parameters, distributions=self._distributions, value=finished[key])
                )

    @property
    def left(self) -> int:
        """Number of samples to run."""
        return len(self._queue) + max(0, self._sweep.sampling.samples - len(self._sweep.drawn))

    def next(self) -> Trial | None:
        """Return the next trial, None when all samples are drawn or the space has no others."""
        import optuna

        if self._queue:
            parameters = self._queue.pop(0)
            self._study.enqueue_trial(parameters)
            trial = self._sweep.trial(parameters)
            self._asked[trial.hash] = self._study.ask(self._distributions)
            return trial
        if len(self._sweep.drawn) >= self._sweep.sampling.samples:
            return None
        for _ in range(_PATIENCE):
            suggestion = self._study.ask(self._distributions)
            drawn = self._valid(suggestion.params)
            if drawn is not None and drawn.hash not in self._hashes:
                self._hashes.add(drawn.hash)
                self._sweep.note(dict(suggestion.params))
                self._asked[drawn.hash] = suggestion
                return drawn
            self._study.tell(suggestion, state=optuna.trial.TrialState.FAIL)
        return None

    def _valid(self, parameters: Mapping[str, Any]) -> Trial | None:
        """Return the trial of what was drawn, None where values that are each valid are not so together."""
        try:
            return self._sweep.trial(parameters)
        except InvalidSpecError as error:
            _log.info("drawn again: %s", error)
            return None

    def tell(self, key: str, value: float | None) -> None:
        """Report what the trial with hash `key` came to; None for a failure."""
        import optuna

        suggestion = self._asked.pop(key, None)
        if suggestion is not None:
            state = optuna.trial.TrialState.FAIL if value is None else None
            self._study.tell(suggestion, value, state=state)


def sampled_sweeps(suite: Suite, folder: Path) -> Iterator[SampledSweep]:
    """Yield the sampled sweeps of a suite: one per experiment that samples and point of its grid."""
    for experiment, point, _ in sampled(suite):
        yield SampledSweep(suite, experiment, point, folder)


def _choice(values: Any, position: Any) -> Any:
    return values[int(position)]


def _distribution(values: list[Any] | Range) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(values, Range):
        return CategoricalDistribution(range(len(values)))
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)
