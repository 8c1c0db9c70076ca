"""What is asked of every method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from torch import nn

from dms_bench.config.method import MethodSpec
from dms_bench.config.plugins import TASKS, parse_plugin
from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec
from dms_bench.config.task import TaskSpec
from dms_bench.config.trial import Trial
from dms_bench.methods.base import SearchContext
from dms_bench.scaling import Architecture, SearchSpace, count, cut
from dms_bench.tasks import make_task
from dms_bench.testing.state import ELSEWHERE, HERE, as_broken, difference, stage_loop, state_of, unsettle
from dms_bench.testing.workers import WORKERS, in_two_processes
from dms_bench.trial.budget import missed, resolve_budget
from dms_bench.trial.spaces import find_specified

#: What a method is checked on where its author names no task: a residual network, for depth as well as widths.
_TASK = {
    "kind": "classification",
    "data": {"name": "glyphs", "train": 96, "val": 40, "test": 40, "classes": 4, "difficulty": 0.2},
}
_SUPERNET = {"model": "resnet18", "args": {"channels": [8, 8, 16, 16]}}
_RECIPE = {"epochs": 1, "batch_size": 32, "lr": 0.05}


def check_method(
    method: MethodSpec,
    *,
    task: TaskSpec | Mapping[str, Any] | None = None,
    supernet: SupernetSpec | Mapping[str, Any] | None = None,
    recipe: Recipe | Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    pipeline: str = "DMSnp",
    seed: int = 0,
) -> None:
    """Check what CONTRIBUTING.md asks of every method.

    1. It returns the same architecture when it is asked twice.
    2. Everything random derives from `context.generator()`: the process's own generators do not matter. A method that
       seeds a generator of its own, always the same, is not told from one that draws nothing.
    3. It meets the budget, unless its specification says that it does not use one (`uses_budget`).
    4. It leaves the network as it got it (weights, modes, hooks), unless it trains (`trains_in_search`).
    5. All workers of a trial return the same architecture.

    Args:
        method: what to check.
        task: what is searched for; by default rendered characters of four classes.
        supernet: the network; by default a small ResNet, of which widths and blocks are searched.
        recipe: of its training; by default one epoch.
        budget: in MACs or parameters, as a suite writes it; half of the MACs by default.
        pipeline: of the trial; the weights are random in any case.
        seed: the trial's.

    Raises:
        AssertionError: a promise is broken.
    """
    spec = task if isinstance(task, TaskSpec) else cast(TaskSpec, parse_plugin(TASKS, dict(task or _TASK)))
    recipe = recipe or _RECIPE
    trial = Trial.model_validate(
        {
            "experiment": "check",
            "task": spec,
            "supernet": supernet or _SUPERNET,
            "pipeline": pipeline,
            "budget": budget or {"kind": "macs", "target": "50%"},
            "method": method,
            "pretrain": recipe,
            "search": recipe,
            "retrain": recipe,
            "seed": seed,
        }
    )
    with TemporaryDirectory() as folder, as_broken(f"method {method.kind!r}"):
        asked = _Asked.of(trial, Path(folder))
        first, context, untouched = asked.search("first", HERE)
        _check_budget(asked, first, context)
        if not method.trains_in_search:
            changed = difference(untouched, _facts(context.model))
            assert not changed, (
                "the network is left as it was, unless the method trains (trains_in_search): "
                f"the search has changed {changed}"
            )
        again = asked.search("again", HERE)[0]
        assert again == first, (
            f"the same architecture is returned when it is asked twice: a second search kept {_other(first, again)}"
        )
        elsewhere = asked.search("elsewhere", ELSEWHERE)[0]
        assert elsewhere == first, (
            "everything random derives from context.generator(): with the global generators of torch, numpy and random "
            f"in another state, a search kept {_other(first, elsewhere)}"
        )
        one, other = in_two_processes(_search_of_a_worker, asked, asked.folder)
        assert one == other, f"all workers return the same architecture: one of two kept {_other(one, other)}"


@dataclass(frozen=True)
class _Asked:
    """A trial whose method is asked to search."""

    trial: Trial
    #: Of the supernet, and of the network that the method starts from.
    budgeted: SearchSpace
    space: SearchSpace
    folder: Path

    @classmethod
    def of(cls, trial: Trial, folder: Path) -> _Asked:
        task = make_task(trial.task, trial.seed)
        task.prepare()
        supernet, network = trial.supernet, trial.network
        budgeted = find_specified(task.build(supernet), task.example_input(), supernet.space)
        space = (
            budgeted
            if network == supernet
            else find_specified(task.build(network), task.example_input(), network.space)
        )
        return cls(trial, budgeted, space, folder)

    def search(
        self, name: str, state: int, rank: int = 0, workers: int = 1
    ) -> tuple[Architecture, SearchContext, dict[str, Any]]:
        """Search; returns what was found, what the method got, and what the network was before."""
        unsettle(state)
        trial = self.trial
        task = make_task(trial.task, trial.seed)
        model = task.build(trial.network)
        before = _facts(model)
        loop = stage_loop(self.folder / name, None, rank, workers)
        context = SearchContext(trial, task, model, self.space, resolve_budget(trial, self.budgeted), loop)
        architecture = trial.method.load_implementation()(trial.method).search(context)
        assert isinstance(architecture, Architecture), (
            f"search returns an Architecture: it returned {type(architecture).__name__}"
        )
        return architecture, context, before


def _check_budget(asked: _Asked, architecture: Architecture, context: SearchContext) -> None:
    network = cut(context.model.cpu(), asked.space, architecture)  # also of a method without a budget: it must be one
    if not asked.trial.method.uses_budget:
        return
    counted = count(network, context.task.example_input(1))
    costs = {"macs": float(counted.macs), "params": float(counted.params)}
    compared = ", ".join(
        f"{costs[bound.name]:,.0f} {bound.name} in place of {bound.target:,.0f}" for bound in context.budget.constraints
    )
    assert not missed(costs, context.budget), f"the budget is met within 1 %: the network found has {compared}"


def _search_of_a_worker(asked: _Asked, rank: int) -> Architecture:
    return asked.search("together", HERE, rank, WORKERS)[0]


def _facts(model: nn.Module) -> dict[str, Any]:
    """Return what a search may not change."""
    facts: dict[str, Any] = dict(state_of(model))
    for name, module in model.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        facts[f"the mode (train or eval) of {name or 'the network'!r}"] = module.training
        facts[f"the hooks of {name or 'the network'!r}"] = [len(kind) for kind in hooks]
    for name, parameter in model.named_parameters():
        facts[f"requires_grad of {name!r}"] = parameter.requires_grad
    return facts


def _other(one: Architecture, other: Architecture) -> str:
    """Return the first thing that one architecture keeps and another does not."""
    for kind, first, second in (("group", one.groups, other.groups), ("stage", one.stages, other.stages)):
        for name in sorted(first.keys() | second.keys()):
            if first.get(name) != second.get(name):
                numbers = " and ".join(str(len(kept.get(name, ()))) for kept in (first, second))
                return f"other elements of {kind} {name!r} ({numbers})"
    return "the same, and says that it costs something else"
