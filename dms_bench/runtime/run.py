"""Run a suite: refuse what cannot be, then do what is left of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dms_bench.config import Suite, Trial, resolve
from dms_bench.errors import Refusals
from dms_bench.trial.storage import CLAIM_SECONDS, SuiteFolder

if TYPE_CHECKING:
    from rich.console import Console


def run_suite(suite: Suite, *, fresh: bool = False, console: Console | None = None) -> int:
    """Run what is left of a suite: finished trials stay, unfinished ones go on, failed ones are tried again.

    Args:
        suite: what to run.
        fresh: forget the suite's earlier results first.
        console: where to show progress; by default the standard output.

    Returns:
        Exit code: 0 when every trial is finished, 1 when one failed or the run was interrupted.

    Raises:
        UserError: the suite cannot be run as it is written; nothing has been trained.
    """
    from rich.console import Console

    from dms_bench import tracking
    from dms_bench.runtime.driver import Driver
    from dms_bench.runtime.sampling import sampled_sweeps
    from dms_bench.runtime.session import on_a_cluster

    console = console or Console(highlight=False)
    uri = tracking.resolve_uri(suite.tracking)
    tracking.check(uri)
    folder = SuiteFolder.of(suite.storage, suite.name)
    trials = resolve(suite)
    with folder.claimed(CLAIM_SECONDS if on_a_cluster() else 0.0):  # a job's driver outlives its head for some seconds
        sweeps = list(sampled_sweeps(suite, folder.path))
        if fresh:
            drawn = [trial for sweep in sweeps for trial in sweep.trials]
            tracking.forget(uri, suite.name, {trial.hash for trial in (*trials, *drawn)})
            folder.clear()
            sweeps = list(sampled_sweeps(suite, folder.path))
        driver = Driver(suite, folder, uri, trials, sweeps, console)
        check(driver.to_check())
        return driver.run()


def check(trials: Iterable[Trial]) -> None:
    """Make sure, before anything is trained, that data and supernets are there and budgets within reach.

    Raises:
        UserError: they are not, with a line for each thing.
    """
    from dms_bench.tasks import make_task

    seen: set[object] = set()
    refusals = Refusals()
    for trial in trials:
        task_key = trial.task.content_hash()
        supernet_key = (task_key, trial.network.content_hash(), trial.pipeline == "DMSnp")
        budget_key = (*supernet_key, trial.supernet.content_hash(), trial.budget, trial.method.uses_budget)
        stages = [recipe for recipe in (trial.pretrain, trial.search, trial.retrain) if recipe]
        recipes = {(task_key, recipe.content_hash()): recipe for recipe in stages}
        if {budget_key, *recipes} <= seen:
            continue
        with refusals.of(trial.experiment):
            task = make_task(trial.task, trial.seed)
            if task_key not in seen:
                task.prepare()
            for key, recipe in recipes.items():
                if key not in seen:
                    task.check_recipe(recipe)
            if supernet_key not in seen and (trial.pipeline != "DMSnp" or trial.network != trial.supernet):
                task.build(trial.network)  # a missing checkpoint, or an unknown network, is noticed here
            if trial.method.uses_budget:
                from dms_bench.trial.budget import check_counted
                from dms_bench.trial.spaces import space_of

                check_counted(trial, space_of(trial.task, trial.supernet))
        seen |= {task_key, supernet_key, budget_key, *recipes}
    refusals.check()
