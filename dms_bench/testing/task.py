"""What is asked of every task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec
from dms_bench.config.task import TaskSpec
from dms_bench.scaling import SearchSpace, Supernet
from dms_bench.scaling.structure.subnets import RandomPaths
from dms_bench.tasks import Task, make_task
from dms_bench.testing.state import CPU, ELSEWHERE, HERE, as_broken, difference, stage_loop, state_of, unsettle
from dms_bench.testing.watch import Inputs, watch, watched
from dms_bench.testing.workers import WORKERS, in_two_processes
from dms_bench.trial.spaces import find_specified
from dms_bench.trial.stage_loop import Log
from dms_bench.trial.weight_sharing import PathSampling


class InterruptedStageError(BaseException):
    """Stands for the end of a process; no task may catch it."""


def check_task(
    task: TaskSpec,
    recipe: Recipe | Mapping[str, Any],
    supernet: SupernetSpec | Mapping[str, Any] | str,
    *,
    seed: int = 0,
) -> None:
    """Check what CONTRIBUTING.md asks of every task.

    1. The same seed gives the same result to the bit, whatever has happened in the process before.
    2. A stage that is interrupted after any epoch ends like an undisturbed one: a retraining, and a search, whose
       structure hook is called in order and finds its state again.
    3. The test split is not read before `evaluate(..., "test", ...)`. Seen is what goes through a network: no input of
       the test split may have been in training, validation, `losses` or `recalibrate`. A file that is opened too
       early is not seen, nor a mean that was taken over all splits.
    4. Two workers see the data once between them and end with the same weights.

    Besides, every epoch's metrics must hold `val_<metric>`, and what `evaluate` returns the metric.

    Args:
        task: what to check; of little data, that the check takes seconds.
        recipe: of at least two epochs, and without augmentation, so that a sample can be told by its numbers.
        supernet: a small network, of which something can be searched.
        seed: the trial's.

    Raises:
        AssertionError: a promise is broken.
    """
    chosen = recipe if isinstance(recipe, Recipe) else type(task).recipe_class.model_validate(recipe)
    if chosen.epochs < 2:
        raise ValueError("check_task needs a recipe of at least two epochs: an interruption comes between them")
    fields = {"model": supernet} if isinstance(supernet, str) else supernet
    with TemporaryDirectory() as folder, as_broken(f"task {task.kind!r}"):
        case = _Case(task, chosen, SupernetSpec.model_validate(fields), seed, Path(folder))
        implementation = case.make()
        implementation.prepare()
        implementation.check_recipe(chosen)
        assert implementation.train_samples() > 0, "train_samples() is not above zero"
        _check_seed(case)
        for searched in (False, True):
            _check_interruptions(case, searched)
        _check_splits(case)
        _check_workers(case)


@dataclass(frozen=True)
class _Case:
    """A task, and all that it is trained with."""

    task: TaskSpec
    recipe: Recipe
    supernet: SupernetSpec
    seed: int
    folder: Path

    @cached_property
    def space(self) -> SearchSpace:
        task = self.make()
        return find_specified(task.build(self.supernet), task.example_input(), self.supernet.space)

    def make(self) -> Task:
        return make_task(self.task, self.seed)

    def train(
        self,
        name: str,
        *,
        searched: bool = False,
        stop: int = 0,
        state: int = HERE,
        rank: int = 0,
        workers: int = 1,
        inputs: Inputs | None = None,
    ) -> _Trained:
        """Train in the folder `name`, from where it was left.

        Args:
            name: of the folder.
            searched: as a search does: within a wrapper that masks the network, with a structure hook.
            stop: after this epoch the process ends.
            state: of the generators that belong to the process.
            rank: of this worker.
            workers: how many there are.
            inputs: takes up what the network is trained on.
        """
        unsettle(state)
        task = self.make()
        model = task.build(self.supernet)
        loop = stage_loop(self.folder / name, _ended(stop), rank, workers, self.task)
        hook = None
        if searched:
            wrapped = Supernet(model, self.space, RandomPaths(self.space, seed=self.seed))
            hook = _Hook(wrapped)
            model = wrapped
        if inputs is not None:
            watch(model, inputs, training=True)
        try:
            model = task.fit(model, self.recipe, loop, hook)
        except InterruptedStageError:
            return _Trained(model, {}, loop.history)
        assert not stop, f"epochs are told by loop.epoch_done, once each: the training went on after epoch {stop}"
        return _Trained(model, state_of(model), loop.history, hook)


@dataclass(frozen=True)
class _Trained:
    """What a training came to."""

    model: nn.Module
    state: dict[str, Tensor]
    #: Of all epochs, those before an interruption included.
    history: list[dict[str, Any]]
    hook: _Hook | None = None

    def epochs(self) -> list[int]:
        return [int(record["epoch"]) for record in self.history]


def _check_seed(case: _Case) -> None:
    one, other = case.train("one"), case.train("other", state=ELSEWHERE)
    expected_epochs = list(range(1, case.recipe.epochs + 1))
    assert one.epochs() == expected_epochs, f"every epoch is told by loop.epoch_done, once: told were {one.epochs()}"
    promise = "the same seed gives the same result to the bit"
    changed = difference(one.state, other.state)
    assert not changed, f"{promise}: two trainings of seed {case.seed} differ in {changed}"
    name = f"val_{case.task.metric}"
    first, second = one.history[-1][name], other.history[-1][name]
    assert first == second, f"{promise}: two trainings of seed {case.seed} end with {name} {first} and {second}"


def _check_interruptions(case: _Case, searched: bool) -> None:
    stage = "search" if searched else "training"
    undisturbed = case.train(f"{stage}-undisturbed", searched=searched)
    if undisturbed.hook is not None:
        undisturbed.hook.check()
    promise = "a stage that is interrupted after any epoch ends like an undisturbed one"
    for epoch in range(1, case.recipe.epochs + 1):
        name = f"{stage}-{epoch}"
        case.train(name, searched=searched, stop=epoch)
        resumed = case.train(name, searched=searched, state=ELSEWHERE)
        where = f"{promise}: a {stage} that was interrupted after epoch {epoch}"
        assert resumed.epochs() == undisturbed.epochs(), (
            f"{where} has told the epochs {resumed.epochs()}; fit() starts from loop.resume()"
        )
        changed = difference(undisturbed.state, resumed.state)
        assert not changed, f"{where} ends with another {changed}"
        measured = f"val_{case.task.metric}"
        first, second = undisturbed.history[-1][measured], resumed.history[-1][measured]
        assert first == second, f"{where} ends with {measured} {second} in place of {first}"
        if undisturbed.hook is not None and resumed.hook is not None:
            assert resumed.hook.steps == undisturbed.hook.steps, (
                f"{where}: its structure hook has counted {resumed.hook.steps} steps in place of "
                f"{undisturbed.hook.steps}; its state belongs to that of the epoch"
            )


def _check_splits(case: _Case) -> None:
    promise = "the test split is not read before evaluate(..., 'test', ...)"
    task = case.make()
    seen: dict[str, Inputs] = {name: Counter() for name in ("fit", "losses", "recalibrate", "evaluate 'val'")}
    model = task.build(case.supernet)
    with watched(model, seen["fit"]):  # training, and validation after every epoch
        model = task.fit(model, case.recipe, stage_loop(case.folder / "splits", None, 0, 1, case.task))
    with watched(model, seen["losses"]):
        for _ in task.losses(model, 2, CPU):
            pass
    with watched(model, seen["recalibrate"]):
        task.recalibrate(model, CPU)
    with watched(model, seen["evaluate 'val'"]):
        _measured(case, task.evaluate(model, "val", CPU), "val")
    assert seen["fit"], f"{promise}: no input could be seen, as fit() calls no network with tensors"
    tested: Inputs = Counter()
    with watched(model, tested):
        _measured(case, task.evaluate(model, "test", CPU), "test")
    assert tested, f"{promise}: no input could be seen, as evaluate() calls no network with tensors"
    for name, inputs in seen.items():
        early = len(tested.keys() & inputs.keys())
        assert not early, f"{promise}: {early} of its {len(tested)} inputs were in {name} before"


def _measured(case: _Case, metrics: Mapping[str, float], split: str) -> None:
    name = case.task.metric
    assert name in metrics, f"evaluate(..., {split!r}, ...) returns the metric {name!r}: it returned {sorted(metrics)}"


def _check_workers(case: _Case) -> None:
    promise = "two workers see the data once between them"
    short = replace(case, recipe=case.recipe.model_copy(update={"epochs": 1}))
    alone: Inputs = Counter()
    short.train("alone", inputs=alone)
    (first, first_inputs), (second, second_inputs) = in_two_processes(_train_as_a_worker, short, case.folder)
    together, samples = first_inputs + second_inputs, alone.total()
    twice, never = (together - alone).total(), (alone - together).total()
    assert not twice, (
        f"{promise}: one worker alone sees {samples} inputs in an epoch, two see {together.total()} and among them "
        f"{twice} that the one does not, or not as often; where the recipe augments, check it without"
    )
    # A batch that does not come out even may be dropped.
    assert never < case.recipe.batch_size, f"{promise}: {never} of {samples} inputs were seen by neither"
    changed = difference(first, second)
    assert not changed, f"{promise} and learn the same: the two have ended with another {changed}"


def _train_as_a_worker(case: _Case, rank: int) -> tuple[dict[str, Tensor], Inputs]:
    inputs: Inputs = Counter()
    trained = case.train("together", rank=rank, workers=WORKERS, inputs=inputs)
    return trained.state, inputs


class _Hook(PathSampling):
    """A search that draws a subnet for every step, counts the steps, and minds the order of its calls."""

    def __init__(self, supernet: Supernet) -> None:
        super().__init__(supernet)
        self.steps = 0
        self.called = "end_step"
        self.wrong = ""

    def begin_step(self, progress: float) -> None:
        self._call("begin_step", after="end_step")
        if not 0 <= progress < 1:
            self.wrong = self.wrong or f"progress was {progress} in begin_step, which is not in [0, 1)"

    def loss(self) -> Tensor:
        self._call("loss", after="begin_step")
        return torch.zeros(())

    def end_step(self) -> None:
        self._call("end_step", after="loss")
        self.steps += 1
        super().end_step()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]

    def check(self) -> None:
        promise = "a search calls begin_step, loss and end_step of its structure hook in every step"
        assert self.steps, f"{promise}: no step was ended"
        assert not self.wrong, f"{promise}: {self.wrong}"

    def _call(self, name: str, after: str) -> None:
        if self.called != after:
            self.wrong = self.wrong or f"{name} came after {self.called}"
        self.called = name


def _ended(stop: int) -> Log:
    """Return a log in which the process ends after an epoch; 0 for never. Told what was before, it does nothing."""

    def log(stage: str, epoch: int, metrics: dict[str, float]) -> None:
        if epoch == stop:
            raise InterruptedStageError

    return log
