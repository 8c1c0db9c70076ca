"""The process that hands a suite's work to Ray, watches it and sees to it that all results are published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from dms_bench.config import Family, Suite, Trial, families
from dms_bench.errors import TrialFailure, UserError
from dms_bench.runtime.deciding import Course, as_data, course
from dms_bench.runtime.node_memory import Crowd, NodeOutOfMemoryError
from dms_bench.runtime.sampling import SampledSweep, Sampler
from dms_bench.tracking import (
    environment,
    finished,
    names,
    open_suite,
    register_best,
    statuses,
    values_of,
    write_decided,
)
from dms_bench.trial.last_words import OUT_OF_MEMORY, cause
from dms_bench.trial.outcome import result_of
from dms_bench.trial.storage import SuiteFolder
from dms_bench.trial.work import Kind, Work

if TYPE_CHECKING:
    from rich.console import Console

_DONE = ("finished", "stopped")


class Driver:
    """One invocation of a suite."""

    def __init__(
        self,
        suite: Suite,
        folder: SuiteFolder,
        uri: str,
        trials: list[Trial],
        sweeps: list[SampledSweep],
        console: Console,
    ) -> None:
        """Look at what is there already.

        Args:
            suite: what is run.
            folder: where it keeps its files; claimed by this process.
            uri: where results are published.
            trials: the trials that are known beforehand.
            sweeps: the sampled sweeps, whose trials are not.
            console: where to show progress.
        """
        self._suite, self._folder, self._uri, self._console = suite, folder, uri, console
        self._trials, self._sweeps = trials, sweeps
        self._crowd = Crowd()
        self._ray_deaths = 0
        #: How the trials stood in the tracking store when this invocation began, those that were killed included.
        self._before = statuses(uri, suite.name)
        self._known = {trial: status for trial, status in self._before.items() if status != names.RUNNING}
        self._todo = [trial for trial in trials if not self._is_done(trial)]
        self._open_sweeps = [sweep for sweep in sweeps if self._samples_left(sweep)]
        self._families = families(suite)
        #: Trials whose supernet could not be trained in this invocation.
        self._given_up: set[str] = set()
        #: Comparisons whose end has been said: family, comparison.
        self._said: set[tuple[int, int]] = set()

    def to_check(self) -> list[Trial]:
        """Return the trials to run, as far as they are known, and an example of each sampled sweep."""
        return [*self._known_to_run(), *(sweep.example for sweep in self._open_sweeps)]

    def run(self) -> int:
        """Do what is left; returns the exit code.

        Raises:
            UserError: a trial needs more than the machine has.
        """
        to_run_now = self._known_to_run()
        left = len(to_run_now) + sum(self._samples_left(sweep) for sweep in self._open_sweeps)
        added = [trial for trial in self._added() if self._is_done(trial)]
        known = {trial.hash for trial in (*self._trials, *added, *to_run_now)}
        done = len(known) + sum(sweep.sampling.samples for sweep in self._sweeps) - left
        if not left and not self._unpublished():
            self._console.print(f"{self._suite.name}: all {done} trials are finished already")
            self._say_decisions()
            return 0
        to_run = f"{left} trial{'s' * (left != 1)} to run"
        if self._families and left:
            to_run += ", more until comparisons are decided"
        self._console.print(f"{self._suite.name}: {to_run}" + (f", {done} finished already" if done else ""))
        self._environment = environment()
        self._run = open_suite(self._uri, self._suite, self._environment)
        status = "failed"
        try:
            self._run.show(self._measures())
            status = self._train(left) if left else "finished"
            if self._families:
                self._say_decisions()
                write_decided(self._run.uri, self._run.parent_id, [as_data(*each) for each in self._courses()])
            if not self._publish() and status == "finished":
                status = "failed"
            if status != "stopped":  # who has pressed Ctrl-C waits for nothing
                self._present()
        finally:
            self._run.finish(status)
        return 0 if status == "finished" else 1

    def _measures(self) -> dict[str, bool]:
        """Return what the trials are ranked by, and whether more of it is better."""
        trials = (*self._trials, *(sweep.example for sweep in self._sweeps))
        return {trial.task.metric: trial.task.higher_is_better for trial in trials}

    def _present(self) -> None:
        """Let the page of this invocation begin with the leaderboard, register models, say where results are seen."""
        from dms_bench.report.description import describe_suite

        with suppress(UserError):  # where nothing has begun yet there is no board
            self._run.describe(describe_suite(self._uri, self._suite.name, self._suite.description))
        for line in register_best(self._uri, self._suite.name):
            self.say(line)
        self.say(f"MLflow: {self._run.address}")

    def _train(self, total: int) -> str:
        """Have the work done; returns `finished`, `failed` or `stopped` (by the user).

        Raises:
            UserError: a trial needs more than the machine has.
            TrialFailure: the storage takes nothing more; memory, or Ray itself, fails again and again.
        """
        from dms_bench.runtime.console import Board

        self._board = board = Board(self._console, total)
        self._expected = {trial.hash for trial in self._known_to_run()}
        try:
            with board.live():
                while not self._session():
                    pass
        except KeyboardInterrupt:
            self._console.print(
                f"interrupted after {board.ended_trials} of {board.total} trials; the same command goes on from here"
            )
            return "stopped"
        except Exception:
            self._folder.check_room()  # Tune meets a full disk with whatever error comes of its half-written files
            raise
        counted = [f"{number} {status}" for status, number in board.counts.items() if number]
        self._console.print(f"{self._suite.name}: " + ", ".join(counted))
        return "failed" if board.counts["failed"] else "finished"

    def _session(self) -> bool:
        """Have what is left done in one session of Ray; returns whether it got to the end.

        Raises:
            UserError: a trial needs more than the machine has.
            TrialFailure: memory, or Ray itself, fails again and again.
        """
        from dms_bench.runtime.nodes import RayLostError, check_nodes
        from dms_bench.runtime.schedule import RETRIES
        from dms_bench.runtime.session import ray_session

        crowd = self._crowd
        try:
            with ray_session():
                check_nodes(self._folder, self._uri)
                works = crowd.left([self._work("trial", trial) for trial in self._todo])
                sweeps = [sweep for sweep in self._open_sweeps if self._samples_left(sweep)]
                examples = [self._work("trial", sweep.example) for sweep in sweeps]
                self._run_all(works, examples)
                for sweep in sweeps:
                    self._sample(sweep)
                self._decide()
        except NodeOutOfMemoryError:
            for work in crowd.thin(RETRIES + 1):
                self.ended(work, died=True, ray_message=OUT_OF_MEMORY)
            self.say(f"a node ran out of memory; going on with at most {crowd.most} at once")
            return False
        except RayLostError:
            self._ray_deaths += 1
            if self._ray_deaths > RETRIES:
                raise TrialFailure("Ray's own processes keep dying; the same command goes on from here") from None
            self.say("Ray's own processes died; going on with new ones")
            return False
        return True

    def _run_all(self, works: Sequence[Work], examples: Sequence[Work] = ()) -> None:
        """Have trials done, and before them what they share; of `examples` only that."""
        from dms_bench.runtime.schedule import run_all

        crowd, scratch = self._crowd, self._folder.scratch
        run_all(crowd.left(self._supernets([*works, *examples])), scratch, self, crowd.most)
        run_all(crowd.left(self._searches(works)), scratch, self, crowd.most)
        run_all([work for work in works if self._shared_is_ready(work)], scratch, self, crowd.most)

    def _sample(self, sweep: SampledSweep) -> None:
        """Run a sampled sweep."""
        from dms_bench.runtime import hooks, schedule

        example, chosen = sweep.example, sweep.sampling.scheduler
        epochs = example.retrain.epochs if example.retrain else 1
        metric = f"val_{example.task.metric}"

        def stopped(work: Work, epoch: int, value: float) -> None:
            work.folder.stop(f"stopped by the scheduler after epoch {epoch} at {metric} {value:.4g}", value)

        scheduler = hooks.FirstCome()
        if chosen:
            scheduler = hooks.Asha(chosen, metric, example.task.higher_is_better, epochs, stopped)
        schedule.run_sampled(
            _SampledWork(self, sweep), example.resources, scheduler, self._folder.scratch, self, self._crowd.most
        )

    def _decide(self) -> None:
        """Add seeds until the comparisons of every family are decided, or there are no more."""
        self._say_decisions()
        while wanted := self._wanted():
            self._board.total += len({trial.hash for trial in wanted} - self._expected)
            self._expected |= {trial.hash for trial in wanted}
            self._run_all(self._crowd.left([self._work("trial", trial) for trial in wanted]))
            self._say_decisions()

    def _wanted(self) -> list[Trial]:
        """Return the trials that undecided comparisons need next, each once."""
        return list({trial.hash: trial for _, state in self._courses() for trial in state.wanted}.values())

    def _courses(self) -> list[tuple[Family, Course]]:
        """Return how far each family has come."""
        return [(family, course(family, self._is_settled, self._value)) for family in self._families]

    def _is_settled(self, trial: Trial) -> bool:
        return trial.hash in self._given_up or self._is_over(trial)

    def _value(self, trial: Trial) -> float | None:
        """Return what a trial came to on the test split, None where it failed."""
        result = result_of(self._folder.trial(trial.hash))
        if result is not None:
            return result.value
        return self._recorded.get(trial.hash) if self._known.get(trial.hash) == "finished" else None

    @cached_property
    def _recorded(self) -> dict[str, float]:
        """The values of finished trials whose folder is gone."""
        return values_of(self._uri, self._suite.name)

    def _say_decisions(self) -> None:
        """Say each decision once."""
        for number, (family, state) in enumerate(self._courses()):
            found = as_data(family, state)
            for index, pair in enumerate(found.pairs):
                if pair.outcome != "open" and (number, index) not in self._said:
                    self._said.add((number, index))
                    self.say(found.line(pair))

    def _known_to_run(self) -> list[Trial]:
        """Return the trials to run, but for samples and for seeds that depend on what these come to."""
        return list({trial.hash: trial for trial in (*self._todo, *self._wanted())}.values())

    def _added(self) -> Iterable[Trial]:
        """Yield all trials that comparisons may come to need."""
        return (trial for family in self._families for trial in family.trials)

    def started(self, work: Work) -> None:
        """Take notice that work has begun (`hooks.Observer`)."""
        self._crowd.started(work)
        self._board.started(work)

    def ended(self, work: Work, died: bool, ray_message: str = "") -> None:
        """Take notice of work that is over (`hooks.Observer`)."""
        from dms_bench.runtime.console import summary_of
        from dms_bench.runtime.schedule import RETRIES

        self._crowd.ended(work)
        folder = work.folder
        stopped = folder.stopped()
        if work.kind != "trial" and folder.stage("pretrain" if work.kind == "supernet" else "search").finished():
            self._board.ended(work, "finished")
        elif work.kind == "trial" and (result := result_of(folder)) is not None:
            self._board.ended(work, "finished", summary_of(result))
        elif stopped is not None:
            self._board.ended(work, "stopped", stopped[0])
        else:
            if died or folder.failure() is None:
                reason, words = cause(folder, ray_message)
                try:
                    folder.fail(f"its process died {RETRIES + 1} times: {reason}", words)
                except OSError as error:  # on a full disk workers cannot write down why they failed, either
                    self._board.ended(work, "failed", f"storage {self._folder.path}: {error.strerror}")
                    return
            self._fail(work)

    def say(self, message: str) -> None:
        """Tell the user (`hooks.Observer`)."""
        self._console.print(message, markup=False, soft_wrap=True)

    def _fail(self, work: Work) -> None:
        self._board.ended(work, "failed", work.folder.failure() or "")

    def _supernets(self, works: Sequence[Work]) -> list[Work]:
        """Return the training of each supernet that trials share and that is not trained yet."""
        untrained: dict[str, Work] = {}
        for work in works:
            if work.supernet is not None and not work.supernet.stage("pretrain").finished():
                supernet = self._work("supernet", work.trial)
                untrained.setdefault(supernet.key, supernet)
        return list(untrained.values())

    def _searches(self, works: Sequence[Work]) -> list[Work]:
        """Return each search for several budgets that is not done yet, and whose supernet is there."""
        undone: dict[str, Work] = {}
        for work in works:
            if work.search is not None and not work.search.stage("search").finished():
                search = self._work("search", work.trial)
                if all(stage.finished() for _, stage, _ in search.shared):
                    undone.setdefault(search.key, search)
        return list(undone.values())

    def _shared_is_ready(self, work: Work) -> bool:
        """Tell whether what the trial shares with others is there; if that failed, so has the trial."""
        for what, stage, folder in work.shared:
            if not stage.finished():
                work.folder.fail(f"the {what} failed: {folder.failure()}")
                self._given_up.add(work.key)
                self._fail(work)
                return False
        return True

    def _publish(self) -> bool:
        """Publish what the workers could not; returns whether everything is published."""
        from dms_bench.deploy.logged import publish_model
        from dms_bench.trial.publish import publish

        self._known = finished(self._uri, self._suite.name)
        for trial in self._unpublished():
            try:
                work = self._work("trial", trial)
                run = publish(work)
                if result_of(work.folder) is not None:
                    publish_model(work.folder, run)
            except TrialFailure as error:
                self._console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
                return False
        return True

    def _unpublished(self) -> list[Trial]:
        """Return the trials whose end, as their folder has it, is not in the tracking store."""
        drawn = [trial for sweep in self._sweeps for trial in sweep.trials]
        trials = {trial.hash: trial for trial in (*self._trials, *drawn, *self._added())}
        return [trial for hash_, trial in trials.items() if self._status(trial) != self._known.get(hash_)]

    def _status(self, trial: Trial) -> str | None:
        """Return how the trial ended: by its folder or, where that says nothing, by the tracking store."""
        folder = self._folder.trial(trial.hash)
        if result_of(folder) is not None:
            return "finished"
        if folder.stopped() is not None:
            return "stopped"
        return "failed" if folder.failure() is not None else self._known.get(trial.hash)

    def _is_done(self, trial: Trial) -> bool:
        return self._status(trial) in _DONE or self._known.get(trial.hash) in _DONE

    def _is_over(self, trial: Trial) -> bool:
        """Tell whether nothing more is to be done for a trial by this invocation: a failed one is left to the next."""
        return self._crowd.is_over(trial.hash) or self._is_done(trial)

    def _samples_left(self, sweep: SampledSweep) -> int:
        return sweep.sampling.samples - sum(self._is_over(trial) for trial in sweep.trials)

    def _work(self, kind: Kind, trial: Trial, *, scheduled: bool = False) -> Work:
        return Work(
            kind=kind,
            trial=trial,
            suite_folder=self._folder.path,
            uri=self._uri,
            experiment_id=self._run.experiment_id,
            parent_id=self._run.parent_id,
            environment=self._environment,
            new=trial.hash not in self._before,
            scheduled=scheduled,
        )


class _SampledWork:
    """Gives out the trials of a sampled sweep and tells the sampler how they end (`schedule.Feed`)."""

    def __init__(self, driver: Driver, sweep: SampledSweep) -> None:
        self._driver, self._sweep = driver, sweep
        results = {trial.hash: _value(driver._work("trial", trial)) for trial in sweep.trials if driver._is_over(trial)}
        self._sampler = Sampler(sweep, results, sweep.example.task.higher_is_better)

    @property
    def left(self) -> int:
        """Number of samples to run."""
        return self._sampler.left

    def next(self) -> Work | None:
        """Return the next sample, None when there is no more."""
        trial = self._sampler.next()
        if trial is None:
            return None
        return self._driver._work("trial", trial, scheduled=self._sweep.sampling.scheduler is not None)

    def done(self, work: Work) -> None:
        """Tell the sampler what a sample came to."""
        self._sampler.tell(work.key, _value(work))


def _value(work: Work) -> float | None:
    """Return the value on the validation split that a trial ended with, None if it failed."""
    stopped = work.folder.stopped()
    if stopped is not None:
        return stopped[1]
    if work.folder.failure() is not None:
        return None
    for stage in ("retrain", "recalibrate"):
        history = work.folder.stage(stage).history()
        if history:
            value = history[-1].get(f"val_{work.trial.task.metric}")
            return None if value is None else float(value)
    return None
