"""Run a suite: refuse what cannot be, then do what is left of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dms_bench.config import Suite, Trial, families, resolve
from dms_bench.trial.preflight import Preflight
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
    from dms_bench.runtime.adopt import adopt
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
        drawn = [trial for sweep in sweeps for trial in sweep.all_drawn]
        added = [trial for family in families(suite) for trial in family.trials]
        if moved := adopt((*trials, *drawn, *added), folder, uri, suite.name):
            console.print(f"{suite.name}: {moved} trial{'s' * (moved != 1)} of a version before go by their new hashes")
        if fresh:
            check([*trials, *(sweep.example for sweep in sweeps)])  # what is refused costs no earlier result
            forgotten = {trial.hash for trial in (*trials, *drawn, *added)}
            tracking.forget(uri, suite.name, forgotten)
            folder.clear(forgotten)
            for sweep in sweeps:
                sweep.forget()
        driver = Driver(suite, folder, uri, trials, sweeps, console)
        if not fresh:
            check(driver.to_check())
        return driver.run()


def check(trials: Iterable[Trial]) -> None:
    """Make sure, before anything is trained, that data and supernets are there and budgets within reach.

    Raises:
        UserError: they are not, with a line for each thing.
    """
    preflight = Preflight()
    for trial in trials:
        if preflight.check_data(trial):
            preflight.check_recipes(trial)
            preflight.check_networks(trial)
    preflight.refusals.check()
