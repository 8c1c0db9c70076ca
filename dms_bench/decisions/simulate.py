"""How likely a family of comparisons is to decide, by simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dms_bench.decisions.rule import DIFFERENT, EQUAL, Rule, decide_all


@dataclass(frozen=True)
class Power:
    """What a family comes to, over many simulated suites."""

    #: Probability that a comparison with a true difference is found different, and the median of the seeds it takes.
    different: float
    seeds_different: float
    #: The same of being found equal, where there is no difference.
    equal: float
    seeds_equal: float


def power(pairs: Sequence[tuple[int, int]], rule: Rule, effect: float, deviation: float, suites: int = 2000) -> Power:
    """Simulate suites in which the method of most comparisons differs from all others, and suites of equal methods.

    Args:
        pairs: the methods of each comparison, by number.
        rule: when a comparison is decided.
        effect: the true difference, in units of the measure.
        deviation: standard deviation of a paired difference over seeds.
        suites: how many are simulated of each kind.
    """
    members = [member for pair in pairs for member in pair]
    best = max(sorted(set(members)), key=members.count)
    noise = np.random.default_rng(0).normal(size=(suites, max(members) + 1, rule.at_most)) * deviation / np.sqrt(2)
    ours, theirs = np.array(pairs).T
    null = decide_all(noise[:, ours] - noise[:, theirs], rule)
    noise[:, best] += effect
    apart = decide_all(noise[:, ours] - noise[:, theirs], rule)
    concerned = (ours == best) | (theirs == best)
    found = (apart.outcome == DIFFERENT)[:, concerned]
    return Power(
        different=float(found.mean()),
        seeds_different=float(np.median(apart.seeds[:, concerned])),
        equal=float((null.outcome == EQUAL).mean()),
        seeds_equal=float(np.median(null.seeds)),
    )
