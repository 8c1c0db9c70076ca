"""The verdict on a claim, from the table's rules and our trials alone.

Every rule is a question about the mean of paired differences over seeds. It holds when the whole 95 % interval
says so, fails when the whole interval says the opposite, and is undecided at this number of seeds otherwise. A
single seed decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dms_bench.config.published import Cheaper, Equal, Misses, PublishedTable, Reaches, Rule
from dms_bench.report.paper.measured import Measured
from dms_bench.report.statistics import Estimate, paired_difference

Outcome = Literal["reproduced", "not reproduced", "undecided", "missing"]
#: A search that ends within this share of its target has reached it.
REACHED = 0.02


@dataclass(frozen=True)
class Verdict:
    """What became of one rule."""

    #: The question, in words.
    question: str
    outcome: Outcome
    #: The numbers that it was decided by.
    evidence: str


def judge(rules: Sequence[Rule], table: PublishedTable, rows: Mapping[str, Measured]) -> tuple[Verdict, ...]:
    """Return a verdict for each rule.

    Args:
        rules: some of the table's.
        table: the published table.
        rows: our trials by the row's id.
    """
    return tuple(_judge(rule, table, rows) for rule in rules)


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the verdict on a claim: reproduced if every rule is, not reproduced if one is not."""
    for outcome in ("missing", "not reproduced", "undecided"):
        if outcome in outcomes:
            return outcome
    return "reproduced" if outcomes else "undecided"


def _judge(rule: Rule, table: PublishedTable, rows: Mapping[str, Measured]) -> Verdict:
    if isinstance(rule, Misses | Reaches):
        return _target(rule, table.row(rule.row).name, rows[rule.row])
    rival = rule.to if isinstance(rule, Equal) else rule.than
    ours, theirs = rows[rule.row], rows[rival]
    first, second = table.row(rule.row).name, table.row(rival).name
    if isinstance(rule, Cheaper):
        return _cheaper(rule, f"{first} costs less than {second}", ours, theirs)
    measure = table.measures[0]
    sign = 1 if measure.higher_is_better else -1
    difference = paired_difference(ours.values(measure), theirs.values(measure))
    if isinstance(rule, Equal):
        question = f"{first} is within {rule.within:g} of {second}"
        return Verdict(question, _within(difference, rule.within), _show(difference))
    margin = f" by more than {rule.by:g}" if rule.by else ""
    question = f"{first} beats {second}{margin}"
    return Verdict(question, _above(difference, rule.by, sign), _show(difference))


def _target(rule: Misses | Reaches, name: str, measured: Measured) -> Verdict:
    misses = isinstance(rule, Misses)
    question = f"the search of {name} {'ends above' if misses else 'reaches'} its target"
    over = list(measured.over_target().values())
    if not over:
        return Verdict(question, "missing", "no trials")
    beyond = [value > REACHED for value in over]
    shown = ", ".join(f"{100 * value:+.1f} %" for value in over)
    if len(over) < 2 or len(set(beyond)) > 1:
        return Verdict(question, "undecided", shown)
    return Verdict(question, "reproduced" if beyond[0] == misses else "not reproduced", shown)


def _cheaper(rule: Cheaper, question: str, ours: Measured, theirs: Measured) -> Verdict:
    """Compare costs by the logarithm of their ratio, as costs differ by factors."""
    costs = [
        {seed: math.log(days) for seed, days in measured.days(rule.stages).items() if days > 0}
        for measured in (theirs, ours)
    ]
    ratio = paired_difference(*costs)
    if ratio.mean is None:
        return Verdict(question, "missing", "no pair of trials with a cost")
    shown = f"{math.exp(ratio.mean):.3g} times" + ("" if ratio.ci95 is None else f", x/÷ {math.exp(ratio.ci95):.2f}")
    return Verdict(question, _above(ratio, 0.0, 1), f"{shown} (n = {ratio.n})")


def _above(difference: Estimate, by: float, sign: int) -> Outcome:
    if difference.mean is None:
        return "missing"
    if difference.ci95 is None:
        return "undecided"
    mean = sign * difference.mean - by
    if mean > difference.ci95:
        return "reproduced"
    return "not reproduced" if mean < -difference.ci95 else "undecided"


def _within(difference: Estimate, margin: float) -> Outcome:
    if difference.mean is None:
        return "missing"
    if difference.ci95 is None:
        return "undecided"
    size = abs(difference.mean)
    if size + difference.ci95 < margin:
        return "reproduced"
    return "not reproduced" if size - difference.ci95 > margin else "undecided"


def _show(difference: Estimate) -> str:
    if difference.mean is None:
        return "no pair of trials with one seed"
    interval = "" if difference.ci95 is None else f" ± {difference.ci95:.2f}"
    return f"{difference.mean:+.2f}{interval} (n = {difference.n})"
