"""How likely the comparisons of a suite are to be decided, before anything runs."""

from __future__ import annotations

from dms_bench.config import Family
from dms_bench.decisions import Rule, power


def prospects(family: Family, effect: float | None, deviation: float | None) -> str:
    """Say in a line how a family would end, by simulation.

    Args:
        family: what is compared.
        effect: the true difference, in the measure's unit; twice the margin where it is not given.
        deviation: standard deviation of a paired difference over seeds; the margin where it is not given.
    """
    seeds = family.seeds
    effect = 2 * seeds.margin if effect is None else effect
    deviation = seeds.margin if deviation is None else deviation
    found = power(family.pairs, Rule(seeds.at_least, seeds.at_most, seeds.margin), effect, deviation)
    several = f"{len(family.pairs)} comparison{'s' * (len(family.pairs) != 1)}"
    return (
        f"{family.experiment} at {family.condition}, {several}, paired differences with a deviation of {deviation:g}: "
        f"one of {effect:g} is found with probability {found.different:.2f} (half of them within "
        f"{found.seeds_different:.0f} seeds); none at all is found equal within {seeds.margin:g} with "
        f"{found.equal:.2f} ({found.seeds_equal:.0f} seeds)"
    )
