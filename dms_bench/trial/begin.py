"""A suite for a network and data that a user brings: what a task proposes, with budget, controls and seeds; checked.

Nothing is trained. Whatever would be refused before a run is refused here, of the smoke variant too.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from dms_bench.config import InvalidSpecError, Suite, Trial, parse_suite, resolve
from dms_bench.config.budget import BudgetSpec, LatencyBudget, constraints_of, format_amount, parse_budget
from dms_bench.config.plugins import TASKS, registered
from dms_bench.config.proposal import Brought, Choice, Proposal
from dms_bench.config.task import TaskSpec
from dms_bench.config.write import as_mapping, commented, fields, inline, mapping
from dms_bench.errors import UserError, nearest
from dms_bench.scaling import SearchSpace, budget_of
from dms_bench.trial.preflight import Preflight
from dms_bench.trial.spaces import space_of

#: What is compared: the method of the paper, and its controls.
METHODS = ["dms", "uniform", "random", "supernet"]
SEEDS = [0, 1, 2]
#: Share of the supernet's MACs where no budget is given.
_HALF = 0.5
#: Distance from the least and the most that a share keeps, where it is chosen here.
_MARGIN = 0.05
#: What can be counted before anything runs.
_NAMES = {"macs": "MACs", "params": "parameters"}


@dataclass(frozen=True)
class Begun:
    """A suite that is ready to run."""

    #: The file's content.
    text: str
    suite: Suite
    #: What was chosen, by the fields of an experiment.
    choices: tuple[Choice, ...]


def machine() -> tuple[int, int]:
    """Return the numbers of GPUs and of processors of this machine."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return gpus, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begin(brought: Brought, targets: Mapping[str, str], kind: str | None, command: str) -> Begun:
    """Return a suite on what a user brings.

    Args:
        brought: network and data.
        targets: the budget's amounts as text, by kind; half of the MACs where there are none.
        kind: of the task; None where the data tell.
        command: what the user has typed, for the file's first line.

    Raises:
        UserError: network, data or budget cannot be used; a line for each thing.
    """
    given = parse_budget(targets) if targets else None
    task = _task(brought, kind)
    proposal = _proposal(task, brought)
    name = _name(brought.model)
    suite_name = f"{name}-{_name(proposal.data_name)}"[:64].rstrip("-._")
    trial = _trial(suite_name, name, proposal)
    space = space_of(trial.task, trial.supernet)
    budget, small, why = _budget(space, given)
    comparison = [
        Choice("budget", budget, why),
        Choice(
            "sweep.grid.method",
            METHODS,
            "the paper's method; one ratio for all widths, random architectures, and the whole network as controls",
        ),
        Choice(
            "sweep.grid.seed", SEEDS, "three seeds: the fewest that give an interval; more tell smaller differences"
        ),
    ]
    choices = (*_resources(brought), *proposal.choices, *comparison)
    smoke = {**proposal.smoke, **({"budget": small} if small != budget else {}), "sweep": {"grid": {"seed": [0]}}}
    text = _written(suite_name, name, choices, smoke, command, proposal)
    document = as_mapping(text)
    suite = _parsed(document)
    preflight = Preflight()
    for checked in (suite, _parsed(document, smoke=True)):
        for each in resolve(checked):
            if preflight.check_data(each):
                preflight.check_recipes(each)
                preflight.check_networks(each)
        preflight.refusals.check()
    return Begun(text, suite, choices)


def _task(brought: Brought, kind: str | None) -> type[TaskSpec]:
    """Return the task that proposes something. Raises UserError where it is not told which, or there is none."""
    specs = {name: cast(type[TaskSpec], spec) for name, spec in registered(TASKS).items()}
    asked = {name: spec for name, spec in specs.items() if spec.proposal}
    if kind is not None:
        if kind not in asked:
            raise UserError(f"--task {kind!r} proposes no suite; {nearest(kind, asked)}")
        return asked[kind]
    fitting = [name for name, spec in asked.items() if spec.takes(brought)]
    if len(fitting) == 1:
        return asked[fitting[0]]
    if len(fitting) > 1:
        raise UserError(f"--data {brought.data!r} may be for {' or '.join(fitting)}: say which with --task")
    raise UserError(f"--data {brought.data!r} {_nothing(brought)}")


def _nothing(brought: Brought) -> str:
    """Say why no task takes the data."""
    path = brought.path
    if not brought.data.strip() or not path.exists():
        return "does not exist: give a folder of pictures or text, a data YAML, a text file, or an embedded set"
    if path.is_dir():
        empty = not any(files for _, _, files in os.walk(path, followlinks=True))
        held = "is empty" if empty else "holds neither pictures nor text files"
        return f"{held}: give a folder with a sub-folder of pictures for each class, or of text"
    return "is no data that a task takes: give a folder of pictures or text, a data YAML (.yaml), or a text file (.txt)"


def _proposal(task: type[TaskSpec], brought: Brought) -> Proposal:
    module, _, function = task.proposal.partition(":")
    try:
        propose: Callable[[Brought], Proposal] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"the proposal of task {task.__name__}, {task.proposal}: {error}") from error
    try:
        return propose(brought)
    except ValidationError as error:  # a network's or data's name as it was typed
        texts = [detail["msg"].removeprefix("Value error, ") for detail in error.errors(include_url=False)]
        raise UserError("; ".join(texts)) from error


def _name(text: str) -> str:
    """Return what may be the name of a suite or an experiment, made of the end of a path or of a network's name."""
    last = re.split(r"[/:]", text.rstrip("/"))[-1]
    for ending in (".yaml", ".yml", ".pt", ".txt"):
        last = last.removesuffix(ending)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", last)[:40].strip("-._") or "mine"


def _trial(suite_name: str, name: str, proposal: Proposal) -> Trial:
    """Return a trial of the proposal, whose network and task the budget is chosen for."""
    experiment = as_mapping("\n".join(fields(proposal.choices)))
    rest = {"name": name, "method": "supernet", "budget": {"kind": "macs", "target": 1.0}}
    return resolve(_parsed({"name": suite_name, "experiments": [experiment | rest]}))[0]


def _parsed(document: dict[str, Any], smoke: bool = False) -> Suite:
    """Read a suite. Raises UserError for what a task's proposal has not kept to."""
    try:
        return parse_suite(document, smoke=smoke)
    except InvalidSpecError as error:
        raise UserError("\n".join(str(problem) for problem in error.problems)) from error


def _budget(
    space: SearchSpace, given: tuple[BudgetSpec, dict[str, Any]] | None
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the budget, that of the smoke variant, and why; what is given and out of reach is refused later."""
    least, most = _reach(space, "macs")
    possible = round(min(max(_HALF, least + _MARGIN), most), 2)
    half = {"kind": "macs", "target": format_amount(possible)}
    if given is None:
        why = "half of the network's MACs" if possible == _HALF else "the network's MACs, near to half of them"
        return half, half, f"{why}, as none is given; its architectures have {100 * least:.2g}% to {most:.0%}"
    budget, written = given
    parts = []
    for bound in constraints_of(budget):
        if isinstance(bound, LatencyBudget):
            parts.append("latency is measured when the suite runs, and whether the budget is within reach is said then")
        elif bound.kind in _NAMES:
            low, high = _reach(space, bound.kind)
            parts.append(
                f"architectures of this network have {100 * low:.2g}% to {high:.0%} of its {_NAMES[bound.kind]}"
            )
    # A count or a time is out of reach of a network on smaller pictures.
    shares = all(not isinstance(bound, LatencyBudget) and bound.target <= 1 for bound in constraints_of(budget))
    return written, written if shares else half, "; ".join(parts)


def _reach(space: SearchSpace, kind: str) -> tuple[float, float]:
    """Return the least and the most that architectures cost, as shares of the whole."""
    bound = budget_of(space, **{kind: 1.0}).constraints[0]
    if not bound.whole:
        return 0.0, 1.0  # refused with the networks
    low, high = space.reachable(bound.cost)
    return low / bound.whole, high / bound.whole


def _resources(brought: Brought) -> list[Choice]:
    if not brought.gpus:
        return []
    cpus = max(1, min(8, brought.cpus // brought.gpus))
    return [Choice("resources", {"gpus": 1, "cpus": cpus}, f"a GPU for each trial, of {brought.gpus} on this machine")]


def _written(
    suite_name: str, name: str, choices: tuple[Choice, ...], smoke: dict[str, Any], command: str, proposal: Proposal
) -> str:
    """Return the file's content."""
    first = (
        f"Written by `{command}`. The reason for a choice stands above it; change what you know better, then look at "
        "the cost again with `dms-bench plan`."
    )
    lines = [*commented(first)]
    about = (
        f"{name} on {proposal.data_name}, cut to a budget: DMS, one width ratio, random architectures, and the whole."
    )
    lines += [*mapping({"name": suite_name, "description": about}), "", "experiments:"]
    body = list(fields(choices, indent=4))
    lines += [f"  - name: {inline(name)}", *body, ""]
    lines += [
        *commented("`--smoke` does everything once, in small: it shows that all works, and nothing else."),
        "smoke:",
    ]
    lines += mapping(smoke, indent=2)
    return "\n".join(lines) + "\n"
