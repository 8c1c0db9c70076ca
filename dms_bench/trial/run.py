"""One trial, from its specification to its result. Knows nothing of Ray or MLflow.

The stages follow one another as the pipelines of the paper say (`Trial.pipeline`):

```
            build ─> pretrain ─> search ─> cut ─> repair ─> retrain          ─> evaluate
DMSnp                            all weights                from scratch
DMSp                 shared      all weights      asked for from the searched weights
DMSp-                shared      structure only   asked for statistics only
```

A finished stage leaves its outputs and a marker in the trial's folder; a trial that is run again
skips it, and continues an unfinished one from its last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import nn

from dms_bench.config.task import TaskSpec
from dms_bench.config.trial import Trial
from dms_bench.methods.base import SearchContext
from dms_bench.scaling import Architecture, Budget, Count, count, cut, plan_surgery
from dms_bench.scaling.cut.surgery import give_biases
from dms_bench.scaling.latency.model import LatencyModel
from dms_bench.scaling.latency.whole import WholeLatency
from dms_bench.tasks import Task, make_task
from dms_bench.tracking import TrialResult
from dms_bench.trial.beside import Beside
from dms_bench.trial.budget import missed, needs_latency, resolve_budget
from dms_bench.trial.checked import require_right
from dms_bench.trial.counted_task import counted
from dms_bench.trial.group import WorkerGroup
from dms_bench.trial.latency import latencies
from dms_bench.trial.latency_model import runtime_of, shared_latency_model
from dms_bench.trial.meter import Meter, costs
from dms_bench.trial.origin import weights_hash
from dms_bench.trial.outcome import found_by, measured_by, require_numbers
from dms_bench.trial.pictures import smaller_pictures
from dms_bench.trial.record import ARCHITECTURE, WEIGHTS, describe, load_weights, save_weights, write_description
from dms_bench.trial.recut import recut_in
from dms_bench.trial.rehearsal.task import rehearsed
from dms_bench.trial.repair import repair
from dms_bench.trial.repair_report import read_report
from dms_bench.trial.spaces import space_of, untrained
from dms_bench.trial.stage_loop import Log, Report, StageLoop, replay
from dms_bench.trial.storage import StageFolder, WorkFolder, write_atomic
from dms_bench.trial.weight_sharing import train_sharing

#: Weights of the whole network after a search: for the repair where it has trained them, and for several budgets.
WHOLE = "whole.safetensors"


def run_trial(
    trial: Trial,
    folder: WorkFolder,
    group: WorkerGroup,
    *,
    supernet: WorkFolder | None = None,
    searched: WorkFolder | None = None,
    latency: Path | None = None,
    log: Log | None = None,
    report: Report | None = None,
) -> TrialResult | None:
    """Run what is left of a trial; every worker of its group calls this.

    Args:
        trial: what to do.
        folder: the trial's folder, on storage that all workers share.
        group: this process's place among the workers.
        supernet: folder of the pretrained supernet, where the trial has a pretraining recipe.
        searched: folder of the search for several budgets, where the trial's is one (`search_in_one`).
        latency: where trials share the latency models that they have measured; by default the trial's own folder.
        log: publishes epochs; called by the leading worker only.
        report: tells a scheduler about epochs of the retraining; called by all workers.

    Returns:
        The result, which is also in the folder; None in workers that do not lead.

    Raises:
        UserError: the specification cannot be carried out.
        TrialFailure: NaN losses, a damaged file, workers that disagree, layers that this machine computes wrong.
    """
    with Meter(folder, group.hardware(), writes=group.leads) as meter:
        run = _Run(trial, folder, group, meter, supernet, searched, latency or folder.path, log, report)
        network, architecture = run.search()
        network = run.repair(network, architecture)
        network = run.finetune(network)
        return run.evaluate(network, architecture) if group.leads else None


def pretrain_supernet(trial: Trial, folder: WorkFolder, group: WorkerGroup) -> None:
    """Train the supernet that `trial` shares with others, unless that is done; every worker calls this.

    Raises:
        UserError: the specification cannot be carried out.
        TrialFailure: NaN losses or damaged checkpoints.
    """
    assert trial.pretrain is not None
    stage = folder.stage("pretrain")
    if _finished(stage, group):
        return
    with Meter(folder, group.hardware(), writes=group.leads) as meter, meter.stage("pretrain"):
        task = counted(rehearsed(make_task(trial.task, trial.seed)), meter.passed, group.world_size)
        loop = StageLoop(stage, group, meter, measures=trial.task)
        model = task.build(trial.network)
        if trial.network.weight_sharing:
            space = space_of(trial.task, trial.network)
            model = train_sharing(task, model, space, trial.pretrain, loop, trial.seed)
        else:
            model = task.fit(model, trial.pretrain, loop)
        if group.leads:
            save_weights(model.cpu(), stage.output(WEIGHTS))
            stage.finish((WEIGHTS,), loop.history)


def search_in_one(
    trial: Trial, folder: WorkFolder, group: WorkerGroup, *, supernet: WorkFolder | None, latency: Path
) -> None:
    """Find the networks for all budgets that `trial` searches for, unless that is done; every worker calls this.

    Args:
        trial: one of those that share the search.
        folder: the search's own folder.
        group: this process's place among the workers.
        supernet: folder of the pretrained supernet, where the trial has a pretraining recipe.
        latency: where trials share the latency models that they have measured.

    Raises:
        UserError: the specification cannot be carried out.
        TrialFailure: NaN losses, a damaged file, workers that disagree.
    """
    if _finished(folder.stage("search"), group):
        return
    with Meter(folder, group.hardware(), writes=group.leads) as meter:
        _Run(trial, folder, group, meter, supernet, None, latency, None, None).search_in_one()


@dataclass(frozen=True)
class _Run:
    """One attempt at a trial; each method is a stage."""

    trial: Trial
    folder: WorkFolder
    group: WorkerGroup
    meter: Meter
    supernet: WorkFolder | None
    searched: WorkFolder | None
    latency: Path
    log: Log | None
    report: Report | None

    @property
    def starts_random(self) -> bool:
        return self.trial.pipeline == "DMSnp"

    @property
    def repairs_by_searched(self) -> bool:
        """Whether the whole network that a repair goes by is another than before the search."""
        return self.trial.repair != "none" and self.trial.method.trains_in_search and self.trial.pipeline == "DMSp"

    @cached_property
    def latency_model(self) -> LatencyModel | WholeLatency | None:
        """The model of the supernet's latency, where the budget bounds it; all workers ask for it at once."""
        if not (self.trial.method.uses_budget and needs_latency(self.trial)):
            return None
        space = space_of(self.trial.task, self.trial.supernet)
        return shared_latency_model(self.trial, self._task(), space, self.group, self.latency)

    @cached_property
    def budget(self) -> Budget:
        """The budget in absolute numbers."""
        return resolve_budget(self.trial, space_of(self.trial.task, self.trial.supernet), self.latency_model)

    @property
    def runtime(self) -> str:
        """Where the network is timed."""
        return runtime_of(self.trial) if self.trial.method.uses_budget else "eager"

    @cached_property
    def pictures(self) -> TaskSpec:
        """The task as the network is trained and measured on it: with smaller pictures, where the method takes them."""
        return smaller_pictures(self.trial) if self.trial.method.shrinks_pictures else self.trial.task

    def search(self) -> tuple[nn.Module, Architecture]:
        """Return the network that the search finds, ready to be trained on, and what it kept."""
        with self.meter.stage("build"):
            task, space = self._task(), space_of(self.trial.task, self.trial.network)
            budget = self.budget
            self.trial.method.check(space, task)
            model = self._supernet(task)
        stage = self.folder.stage("search")
        if _finished(stage, self.group):
            self._replay("search")
            architecture = Architecture.from_json(stage.output(ARCHITECTURE).read_text())
            network = cut(model, space, architecture)
            if not self.starts_random:
                load_weights(network, stage.output(WEIGHTS))
        else:
            with self.meter.stage("search"):
                if self.trial.method.searched_budgets:
                    architecture, history = self._found_in_one(model)
                else:
                    loop = self._loop("search")
                    method = self.trial.method.load_implementation()(self.trial.method)
                    context = SearchContext(self.trial, task, model, space, budget, loop, self.meter.stage)
                    found = found_by(self.trial.method, method.search(context))
                    architecture, history = self._timed(found, model, budget), loop.history
                self.group.agree(architecture.to_json(), "the architecture found")
                network = cut(model.cpu(), space, architecture)
                if self.group.leads:
                    outputs: tuple[str, ...] = (ARCHITECTURE,)
                    write_atomic(stage.output(ARCHITECTURE), architecture.to_json())
                    if not self.starts_random:
                        save_weights(network, stage.output(WEIGHTS))
                        outputs += (WEIGHTS,)
                    if self.repairs_by_searched:
                        save_weights(model, stage.output(WHOLE))
                        outputs += (WHOLE,)
                    stage.finish(outputs, history)
            if self.trial.method.searched_budgets:
                self._replay("search")
        if self.starts_random:
            network = cut(self._supernet(task), space, architecture)
            task.initialise(network)
        return network, architecture

    def search_in_one(self) -> None:
        """Search for all budgets at once, and leave each network's architecture and the whole network's weights."""
        with self.meter.stage("build"):
            task, space = self._task(), space_of(self.trial.task, self.trial.network)
            asked = [self.trial.model_copy(update={"budget": one}) for one in self.trial.method.searched_budgets]
            budgets = [resolve_budget(trial, space, self.latency_model) for trial in asked]
            self.trial.method.check(space, task)
            model = self._supernet(task)
        stage = self.folder.stage("search")

        def keep(position: int, architecture: Architecture, whole: nn.Module) -> None:
            found = found_by(self.trial.method, architecture)
            architecture = self._timed(found, whole, budgets[position])
            self.group.agree(architecture.to_json(), "the architecture found")
            if self.group.leads:
                write_atomic(stage.output(_of(position, ARCHITECTURE)), architecture.to_json())
                if not self.starts_random:
                    save_weights(whole, stage.output(_of(position, WHOLE)))

        with self.meter.stage("search"):
            loop = self._loop("search")
            method = self.trial.method.load_implementation()(self.trial.method)
            context = SearchContext(self.trial, task, model, space, budgets[-1], loop, self.meter.stage)
            method.search_in_one(context, budgets, keep)
            names = (ARCHITECTURE,) if self.starts_random else (ARCHITECTURE, WHOLE)
            outputs = [_of(position, name) for position in range(len(budgets)) for name in names]
            if self.group.leads:
                stage.finish(tuple(outputs), loop.history)

    def _timed(self, found: Architecture, model: nn.Module, budget: Budget) -> Architecture:
        """Return what a search has found, or what meets the budget where that is timed in a runtime (`recut`)."""
        if self.runtime == "eager" or self.trial.network != self.trial.supernet:
            return found
        space = space_of(self.trial.task, self.trial.supernet)
        return recut_in(self.runtime, self.trial, self._task(), model, space, budget, self.group)(found)

    def _found_in_one(self, model: nn.Module) -> tuple[Architecture, list[dict[str, Any]]]:
        """Take up what the search for several budgets has found for this one, and its epochs.

        Args:
            model: the whole network, which gets the weights that it had when this budget's network was cut.
        """
        assert self.searched is not None
        stage, position = self.searched.stage("search"), self.trial.method.searched_budgets.index(self.trial.budget)
        if not self.starts_random:
            load_weights(model, stage.output(_of(position, WHOLE)))
        return Architecture.from_json(stage.output(_of(position, ARCHITECTURE)).read_text()), stage.history()

    def repair(self, network: nn.Module, architecture: Architecture) -> nn.Module:
        """Make up for the cut, where the trial asks for it.

        The whole network is the pretrained one where the search has left its weights alone, also the statistics of its
        norms, which a search of the structure has let follow the masks. Where the search has trained the weights, it is
        what the search left, without masks, and with statistics of its own.
        """
        if self.trial.repair == "none":
            return network
        stage = self.folder.stage("repair")
        if not _finished(stage, self.group):
            with self.meter.stage("repair"):
                task, space = self._task(), space_of(self.trial.task, self.trial.network)
                whole = self._pretrained(task)
                if self.repairs_by_searched:
                    load_weights(whole, self.folder.stage("search").output(WHOLE))
                    task.recalibrate(whole, self.group.device)
                    whole = whole.cpu()
                repair(network, whole, space, architecture, self.trial.repair, task, stage, self.group, self.meter)
        self._replay("repair")
        give_biases(network, read_report(stage).biases)
        load_weights(network.cpu(), stage.output(WEIGHTS))
        return network

    def finetune(self, network: nn.Module) -> nn.Module:
        """Retrain the cut network, or for DMSp- only re-estimate its statistics."""
        retrains = self.trial.pipeline != "DMSp-"
        stage = self.folder.stage("retrain" if retrains else "recalibrate")
        if _finished(stage, self.group):
            self._replay(stage.name)
            load_weights(network, stage.output(WEIGHTS))
            return network
        with self.meter.stage(stage.name):
            loop, task = self._loop(stage.name), self._task()
            bf16 = getattr(self.trial.retrain, "amp", "none") == "bf16"
            require_right(network, task.example_input(2), self.group, bf16=bf16)
            if retrains:
                recipe, fit = self.trial.retraining, task.fit
                assert recipe is not None
                if recipe.needs_teacher():
                    fit = partial(fit, teacher=self._pretrained(task))
                network = fit(network, recipe, loop)
            elif self.group.leads:
                task.recalibrate(network, self.group.device)
                measured = task.evaluate(network, "val", self.group.device)
                loop.epoch_done(1, {f"val_{name}": value for name, value in measured.items()}, {})
            network = network.cpu()
            if self.group.leads:
                save_weights(network, stage.output(WEIGHTS))
                stage.finish((WEIGHTS,), loop.history)
        return network

    def evaluate(self, network: nn.Module, architecture: Architecture) -> TrialResult:
        """Measure the network on the test split, once, and write the result."""
        task, space, device = self._task(), space_of(self.trial.task, self.trial.network), self.group.device
        with self.meter.stage("evaluate"):
            counted = count(network.cpu(), task.example_input(1))
            surgery = plan_surgery(task.build(untrained(self.trial.network)), space, architecture)
            report = None if self.trial.repair == "none" else read_report(self.folder.stage("repair"))
            description = describe(self.trial, self.pictures, space, architecture, surgery, counted.counter, report)
            write_description(self.folder.path / ARCHITECTURE, description)
            validation = measured_by(self.trial.task, task.evaluate(network, "val", device), "val")
            require_numbers({self.trial.task.metric: validation}, "on the validation split")
            metrics = task.evaluate(network, "test", device)
            measured_by(self.trial.task, metrics, "test")
            require_numbers(metrics, "on the test split")
            times = self._latencies(network, task)
        predicted = None
        if self.latency_model is not None and self.trial.network == self.trial.supernet:
            predicted = space.cost_of(self.latency_model, space.mask(architecture))
        memory = next((bound for bound in self.budget.constraints if bound.name == "memory"), None)
        held = None
        if memory is not None and self.trial.network == self.trial.supernet:
            held = space.cost_of(memory.cost, space.mask(architecture))
        timed = {"latency": times[0], "the supernet's latency": times[1], "the predicted latency": predicted}
        require_numbers(timed, f"on {self.group.device}")
        result = self._result(counted, validation, metrics, times, predicted, held)
        write_atomic(self.folder.result, result.model_dump_json(indent=1))
        return result

    def _latencies(self, network: nn.Module, task: Task) -> list[float]:
        """Return the milliseconds of the network and of the supernet, which take turns."""
        whole = make_task(self.trial.task, self.trial.seed)
        if self.runtime != "eager":
            return list(Beside(whole, self.trial.supernet, self.runtime).times(network.cpu()))
        supernet = whole.build(untrained(self.trial.supernet))
        return latencies([network, supernet], [task.example_input(1), whole.example_input(1)], self.group.device)

    def _result(
        self,
        counted: Count,
        validation: float,
        metrics: dict[str, float],
        times: list[float],
        predicted: float | None,
        held: float | None,
    ) -> TrialResult:
        metric = self.trial.task.metric
        space = space_of(self.trial.task, self.trial.supernet)
        # The prediction is judged where there is one, not the measurement, which differs from run to run; but of a
        # runtime the network's share of the supernet's time, at the pace at which the model was made.
        judged, in_runtime = times[0] if predicted is None else predicted, self.runtime != "eager"
        if in_runtime:
            (bound,) = (bound for bound in self.budget.constraints if bound.name == "latency")
            judged = times[0] / times[1] * bound.whole
        reached = {"macs": float(counted.macs), "params": float(counted.params), "latency": judged}
        reached |= {} if held is None else {"memory": held}
        fidelity = self.latency_model.fidelity if self.latency_model and predicted is not None else None
        shared = costs(self.supernet) if self.supernet else []
        if self.searched is not None:
            share = 1 / len(self.trial.method.searched_budgets)
            shared += [cost.times(share) for cost in costs(self.searched)]
        return TrialResult(
            metric=metric,
            value=metrics[metric],
            validation=validation,
            metrics=metrics,
            macs=counted.macs,
            params=counted.params,
            supernet_macs=round(space.macs),
            supernet_params=round(space.params),
            latency_ms=times[0],
            supernet_latency_ms=times[1],
            latency_runtime=self.runtime if in_runtime else None,
            latency_predicted_ms=predicted,
            memory_bytes=held,
            latency_error=fidelity.error if fidelity else None,
            latency_r2=fidelity.r2 if fidelity else None,
            targets={bound.name: bound.target for bound in self.budget.constraints},
            budget_missed=self.trial.method.uses_budget
            and missed(
                reached,
                self.budget,
                coarse=self.trial.method.shrinks_pictures,
                measured=("latency",) if in_runtime else (),
            ),
            costs=shared + costs(self.folder),
            weights=weights_hash(self.trial),
            seed=self.trial.seed,
        )

    def _task(self) -> Task:
        return counted(rehearsed(make_task(self.pictures, self.trial.seed)), self.meter.passed, self.group.world_size)

    def _supernet(self, task: Task) -> nn.Module:
        """Build the network that is searched, with the weights that the pipeline starts from."""
        return task.build(untrained(self.trial.network)) if self.starts_random else self._pretrained(task)

    def _pretrained(self, task: Task) -> nn.Module:
        """Build the network that is searched, with its weights before the search."""
        model = task.build(self.trial.network)
        if self.supernet is not None:
            load_weights(model, self.supernet.stage("pretrain").output(WEIGHTS))
        return model

    def _loop(self, name: str) -> StageLoop:
        stage = self.folder.stage(name)
        if name == "search":  # a method may record epochs of its own, of a predictor for example; nobody compares them
            return StageLoop(stage, self.group, self.meter, self.log)
        return StageLoop(stage, self.group, self.meter, self.log, self.report, measures=self.trial.task)

    def _replay(self, name: str) -> None:
        if self.log is not None:
            replay(name, self.folder.stage(name).history(), self.log)


def _of(position: int, name: str) -> str:
    """Name the file of one of several budgets."""
    return f"{position}-{name}"


def _finished(stage: StageFolder, group: WorkerGroup) -> bool:
    """Ask whether a stage is finished, when no worker can be changing the answer."""
    group.barrier()
    answer = stage.finished()
    group.barrier()
    return answer
