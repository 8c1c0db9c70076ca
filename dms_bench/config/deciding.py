"""Experiments whose seeds are added until comparisons are decided: which methods, and which comparisons.

A family is what is decided together: the comparisons of one experiment at one budget (and one value of whatever else
the grid varies, but for the methods' own settings and the seed).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dms_bench.config.problems import InvalidSpecError, Path, Problem, show
from dms_bench.config.resolve import grid_points, known_by, resolve, resolve_sample, sampled, trial_count
from dms_bench.config.selection import KEYS, Selection
from dms_bench.config.suite import Experiment, Suite
from dms_bench.config.sweep import UntilDecided
from dms_bench.config.trial import Trial
from dms_bench.errors import UserError, nearest

#: What every method is compared with, unless a suite says otherwise: the columns of the leaderboard.
_RIVALS = ("dms", "random")
#: Held to no budget: ceilings of all budgets.
_UNCUT = ("supernet", "longer")
#: Settings that belong to a method alone. All others are part of the comparison.
_OWN_SETTINGS = ("method", "search")
_NOT_SHARED = (*_OWN_SETTINGS, "seed")


@dataclass(frozen=True)
class Arm:
    """A method with its settings, in one family."""

    label: str
    kind: str
    #: With seed 0.
    first: Trial

    def trial(self, seed: int) -> Trial:
        """Return the trial with a seed."""
        return self.first.model_copy(update={"seed": seed})

    def is_called(self, name: str) -> bool:
        """Tell whether a suite may mean this arm by a name."""
        return name in (self.label, self.kind, self.first.method.label())


@dataclass(frozen=True)
class Family:
    """Comparisons that are decided together."""

    experiment: str
    #: The budget and whatever else tells the families of an experiment apart; fit for a line.
    condition: str
    seeds: UntilDecided
    arms: tuple[Arm, ...]
    #: The arms of each comparison, by position; the first's value less the second's is compared with zero.
    pairs: tuple[tuple[int, int], ...]

    @property
    def trials(self) -> list[Trial]:
        """All trials that the family may come to."""
        return [arm.trial(seed) for seed in range(self.seeds.at_most) for arm in self.arms]

    def name(self, pair: tuple[int, int]) -> str:
        """Return how a comparison is called."""
        ours, theirs = (self.arms[index].label for index in pair)
        return f"{ours} - {theirs} at {self.condition}"


def families(suite: Suite) -> list[Family]:
    """Return the families of a suite, in the order of the file; none where all seeds are given.

    Raises:
        InvalidSpecError: a comparison names a method that is not there, or there is nothing to compare.
    """
    found: list[Family] = []
    problems: dict[Problem, None] = {}
    for position, experiment in enumerate(suite.experiments):
        if experiment.sweep.until_decided is not None:
            of_experiment, wrong = _families_of(suite, experiment, ("experiments", position))
            found += of_experiment
            problems |= dict.fromkeys(wrong)
    if problems:
        raise InvalidSpecError(list(problems))
    return [part for family in found if (part := _part(family, suite.selection)) is not None]


def _part(family: Family, selection: Selection) -> Family | None:
    """Return the methods of a family that are chosen, and the comparisons between them; None where nothing is left."""
    but_for_seed = [key for key in KEYS if key != "seed"]
    kept = [index for index, arm in enumerate(family.arms) if selection.fits(known_by(arm.first), but_for_seed)]
    if not kept:
        return None
    position = {index: new for new, index in enumerate(kept)}
    pairs = tuple((position[a], position[b]) for a, b in family.pairs if a in position and b in position)
    return replace(family, arms=tuple(family.arms[index] for index in kept), pairs=pairs)


def check_selection(suite: Suite, selection: Selection) -> None:
    """Make sure that a selection fits some of a suite's trials.

    Raises:
        UserError: it does not, or it chooses among seeds that comparisons choose.
    """
    deciding = families(suite)
    chosen = [family.experiment for family in deciding if _part(family, selection) is not None]
    if "seed" in selection.patterns and chosen:
        raise UserError(
            f"--only seed={','.join(selection.patterns['seed'])}: experiment {chosen[0]!r} adds seeds until "
            "comparisons are decided; give them instead: --set seed=0"
        )
    added = [arm.first for family in deciding for arm in family.arms]
    selection.check([known_by(trial) for trial in (*resolve(suite), *added, *(first for *_, first in sampled(suite)))])


def idle_comparisons(suite: Suite) -> list[Problem]:
    """Return the comparisons that a suite names where all seeds are given, so that they decide nothing."""
    idle = [
        Problem(("experiments", position, "compare"), _IDLE)
        for position, experiment in enumerate(suite.experiments)
        if experiment.compare is not None and experiment.sweep.until_decided is None
    ]
    if suite.compare is not None and not any(experiment.sweep.until_decided for experiment in suite.experiments):
        idle.append(Problem(("compare",), _IDLE))
    return idle


_IDLE = "needs sweep.grid.seed to be {until: decided, margin: ...}; here the seeds are given"


def most_trials(suite: Suite) -> int:
    """Return how many trials a suite may come to; `trial_count` is the least."""
    known = {trial.hash for trial in resolve(suite)}
    added = {trial.hash for family in families(suite) for trial in family.trials}
    return trial_count(suite) + len(added - known)


def _families_of(suite: Suite, experiment: Experiment, place: Path) -> tuple[list[Family], list[Problem]]:
    seeds = experiment.sweep.until_decided
    assert seeds is not None
    if experiment.sweep.sample is not None:
        text = "samples have no pairs to decide: give the grid's 'seed' as a list, or sample in another experiment"
        return [], [Problem((*place, "sweep", "sample"), text)]
    firsts: dict[str, dict[str, Trial]] = {}
    conditions: dict[str, Mapping[str, Any]] = {}
    for point in grid_points(experiment):
        if point["seed"] == 0:
            fixed = {field: value for field, value in point.items() if field.partition(".")[0] not in _NOT_SHARED}
            key = json.dumps(fixed, sort_keys=True, default=str)
            trial = resolve_sample(suite, experiment, point, {})
            conditions[key] = fixed
            firsts.setdefault(key, {}).setdefault(trial.hash, trial)
    found, wrong = [], []
    for key, trials in firsts.items():
        arms = _arms(list(trials.values()))
        if experiment.compare is not None:
            pairs, problems = _named(arms, experiment, experiment.compare, (*place, "compare"))
        elif suite.compare is not None:
            pairs, problems = _named(arms, experiment, suite.compare, ("compare",))
        else:
            pairs, problems = _by_default(arms), []
        if not pairs and not problems:
            text = "there is nothing to decide: no two methods to compare; name them in 'compare'"
            problems = [Problem((*place, "sweep", "grid", "seed"), text)]
        wrong += problems
        found.append(Family(experiment.name, _condition(arms, conditions[key]), seeds, arms, pairs))
    return found, wrong


def _arms(trials: Iterable[Trial]) -> tuple[Arm, ...]:
    """Name the methods of a family; those that have one label by the settings in which they differ, too."""
    by_label: dict[str, list[Trial]] = {}
    for trial in trials:
        by_label.setdefault(trial.method.label(), []).append(trial)
    return tuple(
        Arm(f"{label} ({settings})" if settings else label, trial.method.kind, trial)
        for label, several in by_label.items()
        for trial, settings in zip(several, _differing(several), strict=True)
    )


def _differing(trials: Iterable[Trial]) -> list[str]:
    """Write the methods' own settings in which trials of one label differ."""
    flat = [dict(_flat(trial.model_dump(mode="json", include=set(_OWN_SETTINGS)))) for trial in trials]
    fields = sorted({field for settings in flat for field in settings})
    varied = [field for field in fields if len({json.dumps(settings.get(field)) for settings in flat}) > 1]
    return [
        ", ".join(f"{field.removeprefix('method.')}={settings.get(field, '-')}" for field in varied)
        for settings in flat
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by their dotted fields."""
    for field, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{field}.")
        else:
            yield f"{prefix}{field}", value


def _condition(arms: Iterable[Arm], fixed: Mapping[str, Any]) -> str:
    """Name the budget, and what else the grid varies."""
    budgets = [arm.first.budget.label() for arm in arms if arm.first.method.uses_budget]
    others = [f"{field}={show(value)}" for field, value in fixed.items() if field.partition(".")[0] != "budget"]
    return ", ".join([*budgets[:1], *others]) or "no budget"


def _by_default(arms: tuple[Arm, ...]) -> tuple[tuple[int, int], ...]:
    """Pair every method with DMS and with random, where there is one setting of these: several would be a choice."""
    pairs: dict[frozenset[int], tuple[int, int]] = {}
    for rival in _RIVALS:
        theirs = [index for index, arm in enumerate(arms) if arm.kind == rival]
        for index, arm in enumerate(arms):
            if len(theirs) == 1 and arm.kind not in (rival, *_UNCUT):
                pair = (theirs[0], index) if rival == "dms" else (index, theirs[0])
                pairs.setdefault(frozenset(pair), pair)
    return tuple(pairs.values())


def _named(
    arms: tuple[Arm, ...], experiment: Experiment, compare: Iterable[list[str]], place: Path
) -> tuple[tuple[tuple[int, int], ...], list[Problem]]:
    """Return the comparisons that a suite names: of every arm that the first name may mean with every of the second."""
    names = sorted({name for arm in arms for name in (arm.label, arm.kind)})
    pairs: dict[frozenset[int], tuple[int, int]] = {}
    problems = []
    for entry, named in enumerate(compare):
        ours, theirs = ([index for index, arm in enumerate(arms) if arm.is_called(name)] for name in named)
        for side, (name, meant) in enumerate(zip(named, (ours, theirs), strict=True)):
            if not meant:
                text = f"no method {name!r} in experiment {experiment.name!r}; {nearest(name, names)}"
                problems.append(Problem((*place, entry, side), text))
        found = [(one, other) for one in ours for other in theirs if one != other]
        if ours and theirs and not found:
            problems.append(Problem((*place, entry), f"{named[0]!r} and {named[1]!r} are one method"))
        for pair in found:
            pairs.setdefault(frozenset(pair), pair)
    return tuple(pairs.values()), problems
