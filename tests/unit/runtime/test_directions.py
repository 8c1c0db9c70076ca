"""Early stopping and samplers follow the direction of the measure, and judge a trial by its last epoch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dms_bench.config.sweep import Scheduler
from dms_bench.runtime import driver, hooks, schedule
from dms_bench.runtime.driver import Driver
from dms_bench.runtime.sampling import Sampler, sampled_sweeps
from tests.unit.runtime.test_sampling import _suite

SPEC = Scheduler(kind="asha", grace_epochs=1, reduction_factor=3)


class TuneTrial:
    """As much of Ray Tune's trial as a scheduler looks at."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id, self.config = trial_id, {"work": trial_id}

    def is_finished(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("higher_is_better", "values", "worse"), [(True, [10.0, 5.0, 20.0], 5.0), (False, [10.0, 20.0, 5.0], 20.0)]
)
def test_asha_stops_the_worse_one(
    higher_is_better: bool, values: list[float], worse: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "work_of", lambda trial: trial)
    stopped: list[float] = []
    asha = hooks.Asha(SPEC, "val_x", higher_is_better, 9, lambda work, epoch, value: stopped.append(value))
    for number, value in enumerate(values):
        trial = TuneTrial(str(number))
        asha.on_trial_add(None, trial)
        asha.on_trial_result(None, trial, {"epoch": 1, "val_x": value})
    assert stopped == [worse]


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_driver_tells_both_in_which_direction_the_task_measures(
    higher_is_better: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = next(iter(sampled_sweeps(_suite(algorithm="optuna"), tmp_path)))
    sweep.sampling.__dict__["scheduler"] = SPEC
    monkeypatch.setattr(type(sweep.example.task), "higher_is_better", higher_is_better)
    told: dict[str, bool] = {}

    def asha(spec: Any, metric: str, higher: bool, *_: Any) -> None:
        told["asha"] = higher

    def sampler(sweep: Any, known: Any, higher: bool) -> None:
        told["sampler"] = higher

    monkeypatch.setattr(hooks, "Asha", asha)
    monkeypatch.setattr(driver, "Sampler", sampler)
    monkeypatch.setattr(schedule, "run_sampled", lambda *_: None)
    unborn = SimpleNamespace(_folder=SimpleNamespace(scratch=tmp_path), _crowd=SimpleNamespace(most=None))
    Driver._sample(unborn, sweep)  # type: ignore[arg-type]
    assert told == {"asha": higher_is_better, "sampler": higher_is_better}


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_optuna_goes_where_the_measure_is_better(higher_is_better: bool, tmp_path: Any) -> None:
    """With known samples whose value is their learning rate, the next ones lie at the better end."""
    space = {"retrain.lr": {"low": 0.0, "high": 1.0}}
    sweep = next(iter(sampled_sweeps(_suite(algorithm="optuna", samples=40, space=space), tmp_path)))
    known = {}
    for number in range(20):
        sweep.note({"retrain.lr": number / 20})
        known[sweep.trials[-1].hash] = number / 20
    sampler = Sampler(sweep, known, higher_is_better)
    rates = []
    while (trial := sampler.next()) is not None:
        rates.append(trial.retrain.lr)
        sampler.tell(trial.hash, trial.retrain.lr)
    mean = sum(rates) / len(rates)
    assert mean > 0.6 if higher_is_better else mean < 0.4


def test_a_sampler_is_told_the_value_of_the_last_epoch() -> None:
    history = {"retrain": [{"val_x": 1.0}, {"val_x": 3.0}, {"val_x": 2.0}], "recalibrate": []}
    folder = SimpleNamespace(
        stopped=lambda: None, failure=lambda: None, stage=lambda name: SimpleNamespace(history=lambda: history[name])
    )
    work: Any = SimpleNamespace(folder=folder, trial=SimpleNamespace(task=SimpleNamespace(metric="x")))
    assert driver._value(work) == 2.0
