"""What is refused before anything is trained: data, recipes, supernets and budgets that cannot be.

Each thing is tried once, however many trials need it, and all that is wrong is said at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from dms_bench.config.budget import latency_of
from dms_bench.errors import Refusals, UserError

if TYPE_CHECKING:
    from dms_bench.config import Trial
    from dms_bench.config.budget import LatencyBudget
    from dms_bench.config.recipe import Recipe
    from dms_bench.config.supernet import SupernetSpec
    from dms_bench.tasks import Task


class Preflight:
    """Tries what trials need, and gathers what is refused, by experiment."""

    def __init__(self) -> None:
        self.refusals = Refusals()
        #: What was tried already: None where it passed.
        self._tried: dict[object, UserError | None] = {}
        #: What was refused: the kind of thing (data, samples, recipe, network, budget, method), the experiment, why.
        self.refused: list[tuple[str, str, str]] = []

    def check_data(self, trial: Trial) -> bool:
        """Note that the data of the trial's task cannot be had; what can be fetched is. Returns whether it is there."""
        return self._try(trial, ("data", trial.task.content_hash()), lambda: _prepare(trial))

    def check_recipes(self, trial: Trial) -> None:
        """Note the trial's recipes that its task or data cannot use; nothing but that, where the data is not there."""
        task = trial.task.content_hash()
        if self._try(trial, ("samples", task), lambda: _task(trial).train_samples()):
            for stage, recipe in (("pretrain", trial.pretrain), ("search", trial.search), ("retrain", trial.retrain)):
                if recipe is not None:
                    key = ("recipe", task, stage, recipe.content_hash())
                    self._try(trial, key, partial(_check_recipe, trial, stage, recipe))

    def check_networks(self, trial: Trial) -> None:
        """Note a network or checkpoint that is not there, a budget out of reach, and a method that cannot search it."""
        key = (trial.task.content_hash(), trial.network.content_hash(), trial.pipeline == "DMSnp")
        if trial.pipeline != "DMSnp" or trial.network != trial.supernet or not trial.method.uses_budget:
            self._try(trial, ("network", *key), lambda: _build(trial))
        if trial.method.uses_budget:  # whose message names the experiment
            budget = ("budget", trial.experiment, *key, trial.supernet.content_hash(), trial.budget)
            if self._try(trial, budget, lambda: _check_budget(trial)):
                if (bound := latency_of(trial.budget)) is not None and bound.runtime != "eager":
                    self._try(trial, ("runtime", *budget[2:5], bound.runtime), lambda: _check_runtime(trial, bound))
                self._try(trial, ("method", *key, trial.method.content_hash()), lambda: _check_method(trial))

    def _try(self, trial: Trial, key: tuple[object, ...], check: Callable[[], object]) -> bool:
        """Try a thing once, note for the trial's experiment what is wrong with it, and return whether nothing is."""
        if key not in self._tried:
            try:
                check()
                self._tried[key] = None
            except UserError as error:
                self._tried[key] = error
        refusal = self._tried[key]
        if refusal is not None:
            self.refused.append((str(key[0]), trial.experiment, str(refusal)))
            with self.refusals.of(trial.experiment):
                raise refusal
        return refusal is None


def owner_of(network: SupernetSpec, trial: Trial) -> str:
    """Return the field of a trial that describes a network: the supernet, or the method that brings its own."""
    return "supernet" if network == trial.supernet else "method"


@contextmanager
def named_as(owner: str) -> Iterator[None]:
    """Let what is refused of a network name the field that describes it; to a task every network is a supernet."""
    try:
        yield
    except UserError as error:
        raise UserError("\n".join(_owned(line, owner) for line in str(error).splitlines())) from error


def _owned(line: str, owner: str) -> str:
    if line.startswith("supernet."):
        return owner + line.removeprefix("supernet")
    return f"{owner}: {line}"


def _task(trial: Trial) -> Task:
    from dms_bench.tasks import make_task

    return make_task(trial.task, trial.seed)


def _prepare(trial: Trial) -> None:
    task = _task(trial)
    task.prepare()


def _check_recipe(trial: Trial, stage: str, recipe: Recipe) -> None:
    task = _task(trial)
    try:
        task.check_recipe(recipe)
    except UserError as error:
        raise UserError("\n".join(f"{stage}: {line}" for line in str(error).splitlines())) from error


def _build(trial: Trial) -> None:
    with named_as(owner_of(trial.network, trial)):
        _task(trial).build(trial.network)


def _check_method(trial: Trial) -> None:
    from dms_bench.trial.spaces import space_of

    with named_as(owner_of(trial.network, trial)):
        space = space_of(trial.task, trial.network)
    trial.method.check(space, _task(trial))


def _check_runtime(trial: Trial, bound: LatencyBudget) -> None:
    from dms_bench.trial.beside import Beside

    try:
        Beside(_task(trial), trial.supernet, bound.runtime)
    except UserError as error:
        raise UserError(f"budget {bound.label()}: {error}") from error


def _check_budget(trial: Trial) -> None:
    from dms_bench.trial.budget import check_counted
    from dms_bench.trial.pictures import smaller_pictures
    from dms_bench.trial.spaces import space_of

    if trial.method.shrinks_pictures:
        with named_as(owner_of(trial.network, trial)):
            smaller_pictures(trial)
        return
    with named_as("supernet"):
        space = space_of(trial.task, trial.supernet)
    check_counted(trial, space)
