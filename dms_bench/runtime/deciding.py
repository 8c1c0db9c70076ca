"""Which trials a family of comparisons still needs, from what its trials have come to so far.

Nothing is written down: the course of a family is followed again from its first seed, so that the same results always
come to the same decisions and the same next trials. The values are those of the test split, which the leaderboard
compares; that the number of seeds depends on them is what the spending of the error pays for. Settings must not be
chosen by them, and are not: `dms-bench leaderboard --tuned` looks at the validation split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dms_bench.config import Family, Trial
from dms_bench.config.task import Unit
from dms_bench.decisions import Decided, Rule, decide
from dms_bench.tracking import DecidedFamily, DecidedPair

#: The value of a trial on the test split; None where it failed.
Value = Callable[[Trial], float | None]


@dataclass(frozen=True)
class Course:
    """How far a family has come."""

    #: Of each comparison, by its number of seeds: those that all trials which it needs are over of.
    decided: tuple[Decided, ...]
    #: The trials to run next; none when all is decided, or there are no more seeds.
    wanted: tuple[Trial, ...]

    @property
    def settled(self) -> tuple[bool, ...]:
        """Which comparisons get no more seeds."""
        return tuple(not self.wanted or one.outcome != "undecided" for one in self.decided)


def rule_of(family: Family) -> Rule:
    """Return when the comparisons of a family are decided."""
    seeds = family.seeds
    return Rule(seeds.at_least, seeds.at_most, seeds.margin)


def course(family: Family, is_over: Callable[[Trial], bool], value: Value) -> Course:
    """Follow a family from its first seed to where results are missing.

    Args:
        family: what is compared.
        is_over: whether nothing more is to be run for a trial.
        value: what a trial that is over came to.
    """
    rule = rule_of(family)
    pairs = family.pairs
    differences: list[list[float | None]] = [[] for _ in pairs]
    decided = [Decided("undecided", 0, 0, None, None, None) for _ in pairs]
    seed = 0
    while seed < rule.at_most:
        # The first seeds are run at once, and by methods that nothing is compared with, too.
        batch = range(rule.at_least) if seed == 0 else range(seed, seed + 1)
        undecided = [pair for pair, so_far in zip(pairs, decided, strict=True) if so_far.outcome == "undecided"]
        needed = {index for pair in undecided for index in pair} if seed else set(range(len(family.arms)))
        trials = {(index, each): family.arms[index].trial(each) for each in batch for index in sorted(needed)}
        wanted = tuple(trial for trial in trials.values() if not is_over(trial))
        if not undecided or wanted:
            return Course(tuple(decided), wanted)
        values = {place: value(trial) for place, trial in trials.items()}
        for row, (ours, theirs) in zip(differences, pairs, strict=True):
            for each in batch:
                one, other = values.get((ours, each)), values.get((theirs, each))
                row.append(None if one is None or other is None else one - other)
        decided = decide(differences, rule)
        seed = batch[-1] + 1
    return Course(tuple(decided), ())


def as_data(family: Family, state: Course) -> DecidedFamily:
    """Return what the comparisons of a family have come to, for the tracking store."""
    found = [
        DecidedPair(
            name=family.name(pair),
            outcome=so_far.outcome if settled else "open",
            seeds=so_far.seeds,
            pairs=so_far.pairs,
            mean=so_far.mean,
            low=so_far.low,
            high=so_far.high,
        )
        for pair, so_far, settled in zip(family.pairs, state.decided, state.settled, strict=True)
    ]
    task = family.arms[0].first.task
    decimals = task.units.get(task.metric, Unit()).decimals + 1  # means over seeds are finer than values
    seeds, alpha = family.seeds, rule_of(family).alpha
    return DecidedFamily(family.experiment, seeds.margin, seeds.at_most, alpha, decimals, tuple(found))
