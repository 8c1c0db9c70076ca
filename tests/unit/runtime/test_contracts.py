"""What a method or task of somebody else's does wrong is one line that names it."""

from __future__ import annotations

from typing import Any

import pytest

from dms_bench.errors import TrialFailure, UserError
from dms_bench.trial.outcome import measured_by
from dms_bench.trial.run import run_trial


def test_an_evaluation_without_the_metric(toy_trial: Any, folder: Any, group: Any, monkeypatch: Any) -> None:
    trial = toy_trial()
    task = trial.task.load_implementation()
    evaluate = task.evaluate

    def other(self: Any, model: Any, split: str, *rest: Any) -> dict[str, float]:
        return {"width": 1.0} if split == "test" else evaluate(self, model, split, *rest)

    monkeypatch.setattr(task, "evaluate", other)
    metric = trial.task.metric
    with pytest.raises(
        TrialFailure, match=rf"'toy' must return its metric '{metric}' .*'test', ...\); it returned 'width'"
    ):
        run_trial(trial, folder, group)
    with pytest.raises(TrialFailure, match=r"'val', ...\); it returned nothing"):
        measured_by(trial.task, {}, "val")


def test_a_search_that_returns_nothing(toy_trial: Any, folder: Any, group: Any, monkeypatch: Any) -> None:
    trial = toy_trial()
    monkeypatch.setattr(trial.method.load_implementation(), "search", lambda self, context: None)
    with pytest.raises(
        TrialFailure, match=r"method 'half' must return an Architecture from search\(...\); it returned NoneType"
    ):
        run_trial(trial, folder, group)


@pytest.mark.parametrize("named", ["nowhere:Search", "dms_bench.errors:Search"])
def test_an_implementation_that_is_not_there(
    named: str, toy_trial: Any, folder: Any, group: Any, monkeypatch: Any
) -> None:
    trial = toy_trial()
    monkeypatch.setattr(type(trial.method), "implementation", named)
    with pytest.raises(UserError, match=f"the implementation of 'half', {named}: "):
        run_trial(trial, folder, group)
