"""Where Ray Tune and the driver meet: what Tune tells, what it is given to do, what it ends early.

The `Tuner` pickles all of these for a restore that is never asked for, as trials are taken up from
their folders; so they leave what they hold behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from dms_bench.config.sweep import Scheduler
from dms_bench.runtime.nodes import check_alive
from dms_bench.trial.work import Work

#: Seconds between two looks at whether any node is left.
_LOOK_SECONDS = 5.0


class Feed(Protocol):
    """Gives out work, one piece at a time."""

    @property
    def left(self) -> int:
        """Upper bound on the pieces that it gives out."""

    def next(self) -> Work | None:
        """Return the next piece, None when there is no more."""

    def done(self, work: Work) -> None:
        """Take notice that a piece is over."""


class Observer(Protocol):
    """Is told what happens to work."""

    def started(self, work: Work) -> None:
        """Work has begun, or has begun anew after its process died."""

    def ended(self, work: Work, died: bool, ray_message: str = "") -> None:
        """Work is over; its process `died` once too often (of that Ray has a `ray_message`), or its folder says how."""

    def say(self, message: str) -> None:
        """There is something that the user should know."""


class _StatelessWhenPickled:
    def __getstate__(self) -> dict[str, Any]:
        return {}


class Watch(_StatelessWhenPickled, TrialProgressCallback):  # type: ignore[misc]
    """Tells an observer. A progress callback, as Tune would add its own chatty one beside any other."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self._observer = observer
        self._next_look = 0.0

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune looks for news, ten times a second.

        Raises:
            RayLostError: there will be none any more.
        """
        if time.monotonic() >= self._next_look:
            check_alive()
            self._next_look = time.monotonic() + _LOOK_SECONDS

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune starts a trial."""
        self._observer.started(work_of(trial))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, *_: Any, **info: Any) -> None:
        """Tune has a report: nothing to print."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has returned, or was stopped by the scheduler."""
        self._observer.ended(work_of(trial), False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died too often."""
        self._observer.ended(work_of(trial), True, str(trial.get_error() or ""))


class FromFeed(_StatelessWhenPickled, Searcher):  # type: ignore[misc]
    """Lets Tune ask a feed for its next trial."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed
        self._given: dict[str, Work] = {}

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """Accept what Tune knows of metric and space; the feed knows better."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's configuration."""
        work = self._feed.next()
        if work is None:
            return Searcher.FINISHED
        self._given[trial_id] = work
        return {"work": work.model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Pass on that a trial is over."""
        self._feed.done(self._given.pop(trial_id))

    def save(self, checkpoint_path: str) -> None:
        """Satisfy Tune's snapshots."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: sweeps are taken up from their own lists of samples."""
        raise RuntimeError("a sweep goes on from its own list of samples, not from Tune's snapshot")


class FirstCome(_StatelessWhenPickled, FIFOScheduler):  # type: ignore[misc]
    """Tune's order of trials, without its walk over all that have ended, twice for each that begins."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._open: dict[Trial, None] = {}

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Tune has another trial."""
        super().on_trial_add(tune_controller, trial)
        self._open[trial] = None

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the first trial that waits; none is ever paused."""
        self._open = {trial: None for trial in self._open if not trial.is_finished()}
        return next((trial for trial in self._open if trial.status == Trial.PENDING), None)


class Asha(FirstCome, AsyncHyperBandScheduler):  # type: ignore[misc]
    """Tune's ASHA, which says whom it stops: `stopped(work, epoch, value)`."""

    def __init__(
        self,
        spec: Scheduler,
        metric: str,
        higher_is_better: bool,
        epochs: int,
        stopped: Callable[[Work, int, float], None],
    ) -> None:
        super().__init__(
            time_attr="epoch",
            metric=metric,
            mode="max" if higher_is_better else "min",
            max_t=max(epochs, spec.grace_epochs),
            grace_period=spec.grace_epochs,
            reduction_factor=spec.reduction_factor,
            stop_last_trials=False,  # they still have to be evaluated
        )
        self._tell = stopped

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide whether the trial goes on after an epoch."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP:
            self._tell(work_of(trial), int(result["epoch"]), float(result[self._metric]))
        return decision


def work_of(trial: Any) -> Work:
    """Return the work that a trial of Tune's does."""
    return Work.model_validate_json(trial.config["work"])
