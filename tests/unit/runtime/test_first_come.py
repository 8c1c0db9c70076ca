"""Tune's order of trials, kept without a look at those that have ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from dms_bench.config.sweep import Scheduler
from dms_bench.runtime.hooks import Asha, FirstCome


@dataclass(eq=False)
class Stub:
    """A trial of Tune's, as far as its schedulers look at one; counts how often they do."""

    states: list[str] = field(default_factory=lambda: [Trial.PENDING])
    looks: int = 0
    trial_id: str = ""

    @property
    def status(self) -> str:
        self.looks += 1
        return self.states[-1]

    def is_finished(self) -> bool:
        return self.status in (Trial.ERROR, Trial.TERMINATED)


@dataclass
class Controller:
    trials: list[Stub]

    def get_trials(self) -> list[Stub]:
        return self.trials


def _events(scheduler: Any, number: int) -> list[int | None]:
    """Choices while two trials run at a time, every third trial's process dies once and every seventh's for good."""
    trials = [Stub() for _ in range(number)]
    controller = Controller(trials)
    for trial in trials:
        scheduler.on_trial_add(controller, trial)
    chosen: list[int | None] = []
    running: list[int] = []
    while True:
        found = scheduler.choose_trial_to_run(controller)
        chosen.append(None if found is None else trials.index(found))
        if chosen[-1] is not None:
            running.append(chosen[-1])
            found.states.append(Trial.RUNNING)
        if found is None and not running:
            return chosen
        if len(running) == 2 or found is None:
            ends = running.pop(0)
            again = ends % 3 == 0 and trials[ends].states.count(Trial.RUNNING) == 1
            trials[ends].states.append(Trial.PENDING if again else Trial.ERROR if ends % 7 == 0 else Trial.TERMINATED)


def test_trials_begin_in_the_order_of_tunes_own_scheduler() -> None:
    expected = _events(FIFOScheduler(), 40)

    assert len(expected) > 40
    assert _events(FirstCome(), 40) == expected


def test_early_stopping_keeps_that_order() -> None:
    spec = Scheduler(grace_epochs=1, reduction_factor=2)

    asha = Asha(spec, "val_top1", True, 4, lambda *_: None)

    assert _events(asha, 40) == _events(FIFOScheduler(), 40)


def test_what_has_ended_is_not_looked_at_again() -> None:
    scheduler = FirstCome()
    trials = [Stub() for _ in range(100)]
    for trial in trials:
        scheduler.on_trial_add(Controller(trials), trial)
    for trial in trials[:99]:
        trial.states.append(Trial.TERMINATED)
    scheduler.choose_trial_to_run(Controller(trials))
    before = sum(trial.looks for trial in trials)

    assert scheduler.choose_trial_to_run(Controller(trials)) is trials[99]
    assert sum(trial.looks for trial in trials) - before < 5
