"""What is refused before anything is trained: data, recipes, supernets and budgets that cannot be.

Each thing is tried once, however many trials need it, and all that is wrong is said at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from dms_bench.errors import Refusals, UserError

if TYPE_CHECKING:
    from dms_bench.config import Trial
    from dms_bench.config.recipe import Recipe
    from dms_bench.tasks import Task


class Preflight:
    """Tries what trials need; a thing that failed is tried again for every experiment that needs it."""

    def __init__(self) -> None:
        self.refusals = Refusals()
        self._passed: set[object] = set()
        self._refused: set[tuple[str, object]] = set()

    def check_recipes(self, trial: Trial) -> None:
        """Note the trial's recipes that its task or data cannot use."""
        for stage, recipe in (("pretrain", trial.pretrain), ("search", trial.search), ("retrain", trial.retrain)):
            if recipe is not None:
                key = ("recipe", trial.task.content_hash(), recipe.content_hash())
                self._try(trial.experiment, key, partial(_check_recipe, trial, stage, recipe))

    def check_data(self, trial: Trial) -> None:
        """Note that the data of the trial's task cannot be had; data that can be fetched is."""
        self._try(trial.experiment, ("data", trial.task.content_hash()), lambda: _task(trial).prepare())

    def check_networks(self, trial: Trial) -> None:
        """Note a network or checkpoint that is not there, and a budget out of the supernet's reach."""
        key = (trial.task.content_hash(), trial.network.content_hash(), trial.pipeline == "DMSnp")
        if trial.pipeline != "DMSnp" or trial.network != trial.supernet:
            self._try(trial.experiment, ("network", *key), lambda: _task(trial).build(trial.network))
        if trial.method.uses_budget:
            budget = ("budget", *key, trial.supernet.content_hash(), trial.budget)
            self._try(trial.experiment, budget, lambda: _check_budget(trial))

    def _try(self, experiment: str, key: object, check: Callable[[], object]) -> None:
        if key in self._passed or (experiment, key) in self._refused:
            return
        self._refused.add((experiment, key))
        with self.refusals.of(experiment):
            check()
            self._passed.add(key)


def _task(trial: Trial) -> Task:
    from dms_bench.tasks import make_task

    return make_task(trial.task, trial.seed)


def _check_recipe(trial: Trial, stage: str, recipe: Recipe) -> None:
    task = _task(trial)
    try:
        task.check_recipe(recipe)
    except UserError as error:
        raise UserError("\n".join(f"{stage}: {line}" for line in str(error).splitlines())) from error


def _check_budget(trial: Trial) -> None:
    from dms_bench.trial.budget import check_counted
    from dms_bench.trial.spaces import space_of

    check_counted(trial, space_of(trial.task, trial.supernet))
