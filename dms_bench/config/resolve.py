"""From experiments and sweeps to trials: every combination, fully resolved and without duplicates.

A trial that does not validate becomes a `Problem` whose path is where its writer finds the value:
in the experiment, or in the list of the sweep that the value came from.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from dms_bench.config.base import Written
from dms_bench.config.budget import NO_ORDER, BudgetSpec, MacsBudget, bound_the_same
from dms_bench.config.merge import merged
from dms_bench.config.problems import UNKNOWN, WITH, InvalidSpecError, Path, Problem, problems_of, show
from dms_bench.config.selection import Known, budget_names
from dms_bench.config.suite import TRIAL_FIELDS, Experiment, Suite
from dms_bench.config.sweep import Axis, Range, UntilDecided
from dms_bench.config.trial import Trial
from dms_bench.errors import nearest

#: More combinations than this are taken for a mistake.
MAX_TRIALS = 20_000

#: Where a trial runs does not change its result, so sweeping over it would give one trial twice.
_SWEPT = tuple(field for field in TRIAL_FIELDS if field != "resources")


class Choice(NamedTuple):
    """A value that a sweep gives to a field of the trial."""

    field: str
    value: Any
    #: Where the value stands in the experiment.
    path: Path


def resolve(suite: Suite) -> list[Trial]:
    """Return the trials of every experiment that is not sampled, in the order of the file, as far as they are chosen.

    Trials that compute the same thing occur once. Of seeds that are added until comparisons are decided, those that are
    run in any case are there; the others have `deciding.families`.

    Raises:
        InvalidSpecError: a trial does not validate; its problems have a line each.
    """
    global _latest
    # Asked for again after a suite was loaded, and checked; with thousands of trials that takes a second.
    if _latest is None or _latest[0] is not suite:
        _latest = (suite, _resolve(suite))
    return list(_latest[1])


#: The suite that was resolved last, and its trials; both never change.
_latest: tuple[Suite, list[Trial]] | None = None


def _resolve(suite: Suite) -> list[Trial]:
    trials: dict[str, Trial] = {}
    problems: list[Problem] = []
    for position, experiment in enumerate(suite.experiments):
        resolved, wrong = _resolve_experiment(suite, experiment)
        trials |= {trial.hash: trial for trial in resolved}
        problems += [Problem(("experiments", position, *path), text) for path, text in wrong]
    if problems:
        raise InvalidSpecError(problems)
    return [trial for trial in trials.values() if suite.selection.fits(known_by(trial))]


def known_by(trial: Trial) -> Known:
    """Return what a trial is chosen by. One that is not cut for a budget belongs to all of them."""
    return Known(
        experiment=(trial.experiment,),
        method=(trial.method.label(), trial.method.kind),
        budget=budget_names(trial.budget.label()) if trial.method.uses_budget else (),
        seed=(str(trial.seed),),
    )


def sampled(suite: Suite) -> list[tuple[Experiment, dict[str, Any], Trial]]:
    """Return the experiments that sample, each point of their grids, and its first sample, as far as they are chosen.

    What is drawn is chosen by the first sample, too, which is not what all others have.
    """
    found = []
    for experiment in suite.experiments:
        if experiment.sweep.sample is not None:
            first = {
                field: drawn.low if isinstance(drawn, Range) else drawn[0]
                for field, drawn in experiment.sweep.sample.space.items()
            }
            for point in grid_points(experiment):
                trial = resolve_sample(suite, experiment, point, first)
                if suite.selection.fits(known_by(trial)):
                    found.append((experiment, point, trial))
    return found


def trial_count(suite: Suite) -> int:
    """Return how many trials a suite has, sampled ones included; of seeds that are added, those that are run anyway."""
    drawn = sum(experiment.sweep.sample.samples for experiment, _, _ in sampled(suite) if experiment.sweep.sample)
    return len(resolve(suite)) + drawn


def grid_points(experiment: Experiment) -> list[dict[str, Any]]:
    """Return the combinations of the experiment's grid: dotted field -> value; one if there is none."""
    return [{choice.field: choice.value for choice in choices} for choices in _combinations(experiment)]


def sample_space(experiment: Experiment) -> dict[str, list[Any] | Range]:
    """Return what a sampled experiment draws from: dotted field -> choices or range; empty if it is not."""
    return dict(experiment.sweep.sample.space) if experiment.sweep.sample else {}


def resolve_sample(suite: Suite, experiment: Experiment, point: Mapping[str, Any], values: Mapping[str, Any]) -> Trial:
    """Return the trial of a grid point and of the values that were drawn from the sample space.

    Raises:
        InvalidSpecError: the values do not make a valid trial.
    """
    choices = [Choice(field, value, ("sweep", field)) for field, value in (dict(point) | dict(values)).items()]
    try:
        return _Validator(suite, experiment).trial(choices)
    except InvalidSpecError as error:
        start: Path = ("experiments", suite.experiments.index(experiment))
        raise InvalidSpecError([Problem((*start, *path), text) for path, text in error.problems]) from None


def _resolve_experiment(suite: Suite, experiment: Experiment) -> tuple[list[Trial], list[Problem]]:
    """Return the trials of an experiment and what is wrong with it; a sampled one is only checked."""
    wrong = _wrong_fields(experiment)
    useless = {str(path[-1]) for path, _ in wrong}
    size = math.prod(map(_most, experiment.sweep.grid.values()))
    if size > MAX_TRIALS:
        wrong.append(Problem(("sweep", "grid"), f"{size} combinations; at most {MAX_TRIALS} are run"))
        useless |= set(experiment.sweep.grid)
    if useless:
        _, others = _resolve_experiment(suite, _without(experiment, useless))
        # A misspelt field is probably the one that is missing: say it once.
        return [], wrong + [problem for problem in others if problem.text != "missing"]
    combinations = [
        (*point, *drawn) for point in _combinations(experiment) for drawn in _representative_samples(experiment)
    ]
    trials: list[Trial] = []
    failures: dict[Problem, list[Sequence[Choice]]] = {}
    validator = _Validator(suite, experiment)
    for choices in combinations:
        try:
            trials.append(validator.trial(choices))
        except InvalidSpecError as error:
            for problem in error.problems:
                failures.setdefault(problem, []).append(choices)
    everywhere = _values(combinations)
    problems = _too_many_samples(experiment, size)
    if not all(map(bound_the_same, _budgets(trials).values())):
        problems.append(Problem(("sweep", "grid", "budget"), f"'budgets_in_one: true' {NO_ORDER}"))
    if experiment.sweep.sample and any(map(_in_one, trials)):
        problems.append(
            Problem(("sweep", "sample"), "draws trials one by one: 'budgets_in_one: true' needs a list of budgets here")
        )
    for (path, text), failing in failures.items():
        always = len(failing) == len(combinations)
        problems.append(Problem(path, text if always else text + _only_with(path, failing, everywhere)))
    return ([] if experiment.sweep.sample else _together(trials)), problems


def _in_one(trial: Trial) -> bool:
    """Tell whether the trial's search is to be one for all budgets of its sweep."""
    return trial.method.for_budgets([trial.budget]) is not trial.method


def _together(trials: Sequence[Trial]) -> list[Trial]:
    """Give the budgets of their sweep to trials whose search is one for all of them."""
    budgets = _budgets(trials)
    if not budgets:
        return list(trials)
    return [
        trial.model_copy(update={"method": trial.method.for_budgets(budgets[_but_for_budget(trial)]).canonical()})
        if _in_one(trial)
        else trial
        for trial in trials
    ]


def _budgets(trials: Iterable[Trial]) -> dict[str, list[BudgetSpec]]:
    """Return the budgets of each such search."""
    budgets: dict[str, list[BudgetSpec]] = {}
    for trial in filter(_in_one, trials):
        budgets.setdefault(_but_for_budget(trial), []).append(trial.budget)
    return budgets


def _but_for_budget(trial: Trial) -> str:
    return trial.model_copy(update={"budget": MacsBudget(target=1.0)}).hash


def _wrong_fields(experiment: Experiment) -> list[Problem]:
    """Return the swept fields that no trial has, or that are swept twice."""
    problems = []
    for part, fields in (("grid", experiment.sweep.grid), ("sample.space", sample_space(experiment))):
        for field in fields:
            path: Path = ("sweep", *part.split("."), field)
            top = field.split(".")[0]
            if top == "resources":
                problems.append(Problem(path, "decides where a trial runs, not what it computes: not to be swept"))
            elif top not in _SWEPT:
                problems.append(Problem(path, f"no field of a trial; {nearest(top, _SWEPT)}"))
            elif part != "grid" and field in experiment.sweep.grid:
                problems.append(Problem(path, "is in the grid already"))
            elif isinstance(fields[field], UntilDecided) and field != "seed":
                problems.append(Problem(path, "only the values of 'seed' are added until something is decided: a list"))
    return problems


def _too_many_samples(experiment: Experiment, points: int) -> list[Problem]:
    sample = experiment.sweep.sample
    if sample is None or points * sample.samples <= MAX_TRIALS:
        return []
    drawn = f"{sample.samples} samples" + (f" of each of {points} combinations" if points > 1 else "")
    return [Problem(("sweep", "sample", "samples"), f"{drawn}; at most {MAX_TRIALS} trials are run")]


def _without(experiment: Experiment, fields: set[str]) -> Experiment:
    """Return the experiment with fewer swept fields, to see what else is wrong with it."""
    grid = {field: values for field, values in experiment.sweep.grid.items() if field not in fields}
    sample = experiment.sweep.sample
    if sample:
        space = {field: values for field, values in sample.space.items() if field not in fields}
        sample = sample.model_copy(update={"space": space}) if space else None
    sweep = experiment.sweep.model_copy(update={"grid": grid, "sample": sample})
    return experiment.model_copy(update={"sweep": sweep})


def _combinations(experiment: Experiment) -> Iterable[tuple[Choice, ...]]:
    axes = [
        [Choice(field, value, ("sweep", "grid", field, index)) for index, value in enumerate(_values_of(values))]
        for field, values in experiment.sweep.grid.items()
    ]
    return itertools.product(*axes)


def _values_of(axis: Axis) -> Iterable[Any]:
    """Return the values of an entry of the grid that are run in any case."""
    return range(axis.at_least) if isinstance(axis, UntilDecided) else axis


def _most(axis: Axis) -> int:
    """Return how many values an entry of the grid may come to have."""
    return axis.at_most if isinstance(axis, UntilDecided) else len(axis)


def _representative_samples(experiment: Experiment) -> list[tuple[Choice, ...]]:
    """Return samples in which every choice and every bound occurs, the other fields at their first."""
    axes = []
    for field, values in sample_space(experiment).items():
        path: Path = ("sweep", "sample", "space", field)
        bounds = {"low": values.low, "high": values.high} if isinstance(values, Range) else dict(enumerate(values))
        axes.append([Choice(field, value, (*path, key)) for key, value in bounds.items()])
    first = tuple(axis[0] for axis in axes)
    others = [
        (*first[:position], choice, *first[position + 1 :]) for position, axis in enumerate(axes) for choice in axis[1:]
    ]
    return [first, *others]


class _Validator:
    """Validates combinations of one experiment; what they share is parsed with the first."""

    def __init__(self, suite: Suite, experiment: Experiment) -> None:
        self._name = experiment.name
        self._data = suite.data
        self._settings = merged(
            {"resources": suite.resources.model_dump(), "version": suite.version}, experiment.settings
        )
        #: Fields of a valid trial that no combination changes; with them others take half the time.
        self._shared: dict[str, Any] = {}

    def trial(self, choices: Sequence[Choice]) -> Trial:
        """Return the trial of one combination.

        Args:
            choices: of the same fields for each combination.

        Raises:
            InvalidSpecError: with paths relative to the experiment.
        """
        settings = dict(self._settings)
        # `method` is set before `method.temperature`, in whatever order they are written.
        for choice in sorted(choices, key=lambda choice: choice.field.count(".")):
            _assign(settings, choice)
        try:
            trial = Trial.model_validate(
                settings | self._shared | {"experiment": self._name}, context=Written(settings.get("task"))
            )
        except ValidationError as error:
            raise InvalidSpecError([_placed(problem, choices) for problem in problems_of(error, settings)]) from None
        swept = {choice.field.partition(".")[0] for choice in choices}
        if not self._shared and "task" not in swept:  # recipes are parsed by the task's own class
            self._shared = {name: getattr(trial, name) for name in settings if name not in swept}
        return trial.canonical().placed(self._data.roots, self._data.workers).with_content()


def _assign(settings: dict[str, Any], choice: Choice) -> None:
    """Set a dotted field, copying the mappings on the way."""
    *parents, last = choice.field.split(".")
    node = settings
    for depth, parent in enumerate(parents):
        child = node.get(parent)
        if isinstance(child, str) and depth == 0:
            child = {"kind": child}
        if child is not None and not isinstance(child, dict):
            text = f"{'.'.join(parents[: depth + 1])} is {show(child)}, which has no fields"
            raise InvalidSpecError([Problem(choice.path, text)])
        child = dict(child or {})
        node[parent] = child
        node = child
    node[last] = choice.value


def _placed(problem: Problem, choices: Sequence[Choice]) -> Problem:
    """Move a problem with a value that came from a sweep to where the sweep is written."""
    best = Choice("", None, ())
    for choice in choices:
        field = tuple(choice.field.split("."))
        if problem.path[: len(field)] == field and len(choice.field) > len(best.field):
            best = choice
    if not best.field:
        return problem
    rest = problem.path[len(best.field.split(".")) :]
    # That the field does not exist has nothing to do with any one of its values.
    written = best.path[:-1] if not rest and problem.text.startswith(UNKNOWN) else best.path
    return Problem((*written, *rest), problem.text)


def _only_with(path: Path, failing: list[Sequence[Choice]], everywhere: dict[str, set[Path]]) -> str:
    """Name the grid's values on which a problem depends, apart from the value that its path names."""
    first = [choice for choice in failing[0] if choice.path[1] == "grid"]
    others = [choice for choice in first if path[: len(choice.path)] != choice.path]
    values = _values(failing)
    decisive = [choice for choice in others if values[choice.field] != everywhere[choice.field]]
    named = decisive or (others if path[:1] != ("sweep",) else [])
    return f"{WITH}{', '.join(f'{choice.field}={show(choice.value)}' for choice in named)})" if named else ""


def _values(combinations: Iterable[Sequence[Choice]]) -> dict[str, set[Path]]:
    """Return the values that each swept field takes, by where they are written."""
    values: dict[str, set[Path]] = {}
    for choices in combinations:
        for choice in choices:
            values.setdefault(choice.field, set()).add(choice.path)
    return values
