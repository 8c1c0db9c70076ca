"""What a suite will do, and about how much training that is, before anything runs.

Training a network costs about three forward passes per sample: one forward, two backward (with
respect to activations and to weights). So a stage is estimated as

    3 x forward MACs per sample x training samples x epochs,

with the supernet's MACs for pretraining and search, and the target's for retraining (a network that a method
brings has its own throughout), and one forward pass of a teacher, if there is one, for every sample. Evaluation
and repair are not counted. The MACs of a network cut for another resource are not known before the search: they are
taken to shrink as that resource does, with several constraints as the tightest; a latency in milliseconds says
nothing before it is measured, and counts as the whole supernet, as a number of bytes does. What was rehearsed is
measured, and is shown beside (`dms_bench.trial.rehearsal`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dms_bench.config import (
    Suite,
    Trial,
    families,
    resolve,
    sampled,
)
from dms_bench.config.budget import ConstraintSpec, LatencyBudget, MemoryBudget, constraints_of, format_amount
from dms_bench.errors import Refusals, UserError
from dms_bench.trial.gpu_days import gpu_days
from dms_bench.trial.preflight import Preflight, named_as, owner_of

if TYPE_CHECKING:
    from dms_bench.config.supernet import SupernetSpec
    from dms_bench.config.task import TaskSpec
    from dms_bench.scaling import Count

#: Forward and backward pass of a sample, in forward passes.
PASSES = 3


@dataclass(frozen=True)
class StageEstimate:
    """One training stage of a trial."""

    stage: str
    #: Forward MACs of one sample.
    macs: float
    #: Training samples per epoch.
    samples: int
    epochs: int
    #: Trials with the same key share the stage: it is trained once for all of them.
    shared: str | None = None
    #: Elements that the layers write for one sample.
    activations: float = 0.0
    #: Forward MACs and activations of the teacher, which also sees every sample.
    teacher_macs: float = 0.0
    teacher_activations: float = 0.0

    @property
    def gpu_days(self) -> float:
        """Estimated time of the whole stage on an A100, by the paper's own figure (`gpu_days`)."""
        return gpu_days((self.activations + self.teacher_activations / PASSES) * self.samples * self.epochs)

    @property
    def training_macs(self) -> float:
        """Estimated MACs of the whole stage."""
        return (PASSES * self.macs + self.teacher_macs) * self.samples * self.epochs


@dataclass(frozen=True)
class PlannedTrial:
    """One trial, or `count` samples of a sampled sweep, of which the first is shown."""

    experiment: str
    method: str
    budget: str
    pipeline: str
    seed: int
    #: None for samples: their hashes are known when they are drawn.
    hash: str | None
    stages: tuple[StageEstimate, ...]
    count: int = 1
    #: The trial itself, or the first sample.
    trial: Trial | None = field(default=None, repr=False, compare=False)

    @property
    def training_macs(self) -> float:
        """Estimated MACs of the trial's stages, shared ones included."""
        return self.count * sum(stage.training_macs for stage in self.stages)


def plan(suite: Suite) -> list[PlannedTrial]:
    """Return the trials of a suite with the estimated cost of their stages; nothing is trained.

    Seeds that are added until comparisons are decided are left out; `plan_added` has them.

    Raises:
        UserError: a supernet that the task cannot build, a recipe that it cannot use, or data that is not there, with a
            line for each.
    """
    estimator, preflight, planned = _Estimator(), Preflight(), []
    for trial in resolve(suite):
        preflight.check_recipes(trial)
        with preflight.refusals.of(trial.experiment):
            planned.append(estimator.planned(trial))
    for experiment, _, first in sampled(suite):
        assert experiment.sweep.sample is not None
        preflight.check_recipes(first)
        with preflight.refusals.of(experiment.name):
            planned.append(estimator.planned(first, samples=experiment.sweep.sample.samples))
    preflight.refusals.check()
    return planned


def plan_added(suite: Suite) -> list[PlannedTrial]:
    """Return the trials that comparisons may come to need beyond those of `plan`, up to the most.

    Raises:
        UserError: as of `plan`.
    """
    estimator, known = _Estimator(), {trial.hash for trial in resolve(suite)}
    added = {trial.hash: trial for family in families(suite) for trial in family.trials if trial.hash not in known}
    return [estimator.planned(trial) for trial in added.values()]


def total_macs(planned: list[PlannedTrial]) -> float:
    """Return the estimated training MACs of all trials, with every shared stage counted once."""
    total = 0.0
    shared: dict[str, float] = {}
    for trial in planned:
        for stage in trial.stages:
            if stage.shared is None:
                total += trial.count * stage.training_macs
            else:
                shared[stage.shared] = stage.training_macs
    return total + sum(shared.values())


def total_days(planned: list[PlannedTrial]) -> dict[str, float]:
    """Return the estimated A100 days of each stage of all trials, with every shared stage counted once."""
    total: dict[str, float] = {}
    shared: dict[str, StageEstimate] = {}
    for trial in planned:
        for stage in trial.stages:
            if stage.shared is not None:
                shared[stage.shared] = stage
            else:
                total[stage.stage] = total.get(stage.stage, 0.0) + trial.count * stage.gpu_days
    for stage in shared.values():
        total[stage.stage] = total.get(stage.stage, 0.0) + stage.gpu_days
    return total


def cost_lines(planned: list[PlannedTrial], gpus: bool) -> list[str]:
    """Return in words what trials will cost.

    Args:
        planned: the trials.
        gpus: whether they run on GPUs.
    """
    trials = sum(trial.count for trial in planned)
    macs = total_macs(planned)
    lines = [
        f"{trials} trial{'s' * (trials != 1)}, about {macs:.2e} MACs of training (3 x forward MACs x samples x epochs)"
    ]
    if gpus:
        days = total_days(planned)
        stages = ", ".join(f"{stage} {value:.3g}" for stage, value in days.items())
        basis = "from the paper's 2.5 for 100 epochs of EfficientNet-B0"
        lines.append(f"about {sum(days.values()):.3g} A100 days ({stages}), {basis}")
    return lines


def _share(trial: Trial, constraint: ConstraintSpec, supernet: Count) -> float:
    """Return a constraint's target as a share of the supernet's cost.

    Raises:
        UserError: it is more than the whole.
    """
    if isinstance(constraint, LatencyBudget):
        return constraint.share or 1.0
    if isinstance(constraint, MemoryBudget):
        return min(1.0, constraint.target)  # bytes say nothing before the cache is known
    whole = getattr(supernet, constraint.kind)
    share = constraint.target if constraint.target <= 1 else constraint.target / whole
    if share > 1:
        raise UserError(
            f"experiment {trial.experiment!r}: budget {trial.budget.label()} is more than the whole "
            f"{trial.supernet.label()}, which has {format_amount(whole)} {constraint.kind}"
        )
    return float(share)


class _Estimator:
    """Builds and counts every supernet once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Count, int]] = {}

    def planned(self, trial: Trial, samples: int | None = None) -> PlannedTrial:
        """Estimate a trial, or that many samples of which `trial` is the first."""
        return PlannedTrial(
            experiment=trial.experiment,
            method=trial.method.label(),
            budget=trial.budget.label() if trial.method.uses_budget else "-",
            pipeline=trial.course,
            seed=trial.seed,
            hash=None if samples else trial.hash,
            stages=self._stages(trial),
            count=samples or 1,
            trial=trial,
        )

    def _stages(self, trial: Trial) -> tuple[StageEstimate, ...]:
        from dms_bench.trial.pictures import smaller_pictures
        from dms_bench.trial.work import search_hash, supernet_hash

        gathered, counted = Refusals(), []
        for spec in (trial.network, trial.supernet):
            with gathered.of(trial.experiment):
                counted.append(self._count(trial, trial.task, spec, owner_of(spec, trial)))
        gathered.check()
        (network, samples), (supernet, _) = counted
        whole = float(network.macs)
        if not whole:
            raise UserError(f"{owner_of(trial.network, trial)}.model {trial.network.model!r} has no MACs to search")
        share = min(_share(trial, constraint, supernet) for constraint in constraints_of(trial.budget))
        if trial.network != trial.supernet:
            share = 1.0  # the method's network is not cut
        elif trial.method.shrinks_pictures:
            with gathered.of(trial.experiment):
                share = self._count(trial, smaller_pictures(trial), trial.network, "supernet")[0].macs / whole
            gathered.check()
        of_supernet, of_networks = trial.method.trained_epochs(trial.search.epochs) if trial.search else (0, 0)
        stages = (
            ("pretrain", trial.pretrain, trial.pretrain and trial.pretrain.epochs, whole, supernet_hash(trial)),
            ("search", trial.search, of_supernet, whole, search_hash(trial)),
            ("search", trial.search, of_networks, whole * share, None),
            ("retrain", trial.retraining, trial.retraining and trial.retraining.epochs, whole * share, None),
        )
        estimates = []
        for stage, recipe, epochs, macs, shared in stages:
            if recipe is None or not epochs:
                continue
            teaching = recipe.teacher(trial.task, trial.supernet)
            teacher = self._count(trial, *teaching, f"{stage}.distil.teacher")[0] if teaching else None
            estimate = StageEstimate(
                stage,
                macs,
                recipe.samples_per_epoch(samples),
                epochs,
                shared,
                # Of a narrower network MACs fall with the square of the widths, activations with the widths.
                network.activations * (macs / whole) ** 0.5,
                float(teacher.macs) if teacher else 0.0,
                float(teacher.activations) if teacher else 0.0,
            )
            estimates.append(estimate)
        return tuple(estimates)

    def _count(self, trial: Trial, spec: TaskSpec, network: SupernetSpec, owner: str) -> tuple[Count, int]:
        """Return a network's cost and the number of training samples; `owner` is the field that describes it."""
        from dms_bench.scaling import count
        from dms_bench.tasks import make_task
        from dms_bench.trial.spaces import untrained

        network = untrained(network)
        key = (spec.model_dump_json(), network.model_dump_json())  # four times as fast as hashes
        if key not in self._known:
            task = make_task(spec, trial.seed)
            with named_as(owner):
                built = task.build(network)
            self._known[key] = (count(built, task.example_input()), task.train_samples())
        return self._known[key]
