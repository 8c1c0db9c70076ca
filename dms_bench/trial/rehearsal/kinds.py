"""Kinds of trials: those that differ in budget, seed or the size of a number alone do the same work in every step."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from dms_bench.config import Suite, Trial, resolve, sampled
from dms_bench.config.budget import constraints_of

_APART = {"experiment", "version", "budget", "seed", "content"}
#: Text in place of a number whose size changes no step; whether there is one, and whether it is zero, may.
_SOME_NUMBER = "a number"


@dataclass(frozen=True)
class Kind:
    """Trials of one kind, each with how often it is run (samples of a sweep have one trial for all)."""

    key: str
    #: What people see: the first experiment and the method, and a number where another kind has the same.
    name: str
    trials: tuple[tuple[Trial, int], ...]

    @property
    def example(self) -> Trial:
        """The trial with the largest budget, whose network takes the most memory and time."""
        return max((trial for trial, _ in self.trials), key=lambda trial: trial.budget.order())

    @property
    def count(self) -> int:
        """How many trials there are."""
        return sum(times for _, times in self.trials)

    @property
    def experiments(self) -> list[str]:
        """The experiments that they belong to, in the order of the suite."""
        return list(dict.fromkeys(trial.experiment for trial, _ in self.trials))


def kinds(suite: Suite) -> list[Kind]:
    """Return the kinds of trials of a suite, in its order; of added seeds the first ones alone.

    Raises:
        InvalidSpecError: a trial does not validate.
    """
    counted: list[tuple[Trial, int]] = [(trial, 1) for trial in resolve(suite)]
    for experiment, _, first in sampled(suite):
        assert experiment.sweep.sample is not None
        counted.append((first, experiment.sweep.sample.samples))
    found: dict[str, list[tuple[Trial, int]]] = {}
    for trial, times in counted:
        found.setdefault(kind_of(trial), []).append((trial, times))
    named = Counter[str]()
    numbered = []
    for key, trials in found.items():
        first, _ = trials[0]
        name = f"{first.experiment} {first.method.label()}"
        named[name] += 1
        numbered.append(Kind(key, name if named[name] == 1 else f"{name} #{named[name]}", tuple(trials)))
    return numbered


def kind_of(trial: Trial) -> str:
    """Return the key of a trial's kind: a hash of all that decides what a step of it does, and how many there are.

    Networks, task, recipes, pipeline, repair, precision and resources count, and a method's options but for the size of
    its numbers with a point (temperatures, factors); so do all such numbers of a recipe (learning rates), and budgets
    by what they bound. Where data lie, and how many processes load them, is not in it.
    """
    content = trial.model_copy(update={"task": trial.task.identity()}).model_dump(mode="json", exclude=_APART)
    content["network"] = trial.network.model_dump(mode="json")
    content["bounded"] = [constraint.kind for constraint in constraints_of(trial.budget)]
    content["budgets_in_one"] = len(trial.method.searched_budgets)
    for field in ("method", "pretrain", "search", "retrain"):
        content[field] = _sizeless(content[field])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _sizeless(value: Any) -> Any:
    if isinstance(value, float):
        return _SOME_NUMBER if value else 0
    if isinstance(value, dict):
        return {name: _sizeless(each) for name, each in value.items() if name != "budgets_in_one"}
    return [_sizeless(each) for each in value] if isinstance(value, list) else value
