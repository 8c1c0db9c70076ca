"""The verdict on a claim, from the table's rules and our trials alone.

Every rule but those on targets is a claim about the mean of paired differences over seeds. The rules of a table are
decided together, with at most 5 % of tables in which any of these decisions is false (`dms_bench.report.decisions`). A
rule holds, fails, or is undecided at this number of seeds; one row that should be ahead of another may instead be equal
to it, within a point. A single seed decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dms_bench.config.published import Cheaper, Equal, Misses, PublishedTable, Reaches, Rule
from dms_bench.report.decisions import Above, Claim, Decided, Decision, Within, decide
from dms_bench.report.format import p_value
from dms_bench.report.paper.measured import Measured
from dms_bench.report.statistics import Difference, difference

Outcome = Literal["reproduced", "not reproduced", "equal", "undecided", "missing"]
#: A search that ends within this share of its target has reached it.
REACHED = 0.02
#: Rows closer than this are equal, where the measure is in percent.
MARGIN = 1.0
_OUTCOMES: Mapping[Decision, Outcome] = {
    "true": "reproduced",
    "false": "not reproduced",
    "equal": "equal",
    "open": "undecided",
}


@dataclass(frozen=True)
class Verdict:
    """What became of one rule."""

    #: The question, in words.
    question: str
    outcome: Outcome
    #: The numbers that it was decided by.
    evidence: str


class _Tested(NamedTuple):
    """A rule as a claim about a difference."""

    question: str
    claim: Claim
    #: Turned so that larger is better; None without a pair of trials.
    difference: Difference | None
    #: Of the measure; None for costs, whose difference is the logarithm of a factor.
    sign: int | None


def judge(rules: Sequence[Rule], table: PublishedTable, rows: Mapping[str, Measured]) -> tuple[Verdict, ...]:
    """Return a verdict for each rule, decided together.

    Args:
        rules: some of the table's.
        table: the published table.
        rows: our trials by the row's id.
    """
    asked = [
        _target(rule, table.row(rule.row).name, rows[rule.row])
        if isinstance(rule, Misses | Reaches)
        else _tested(rule, table, rows)
        for rule in rules
    ]
    tested = [question for question in asked if isinstance(question, _Tested)]
    decided = iter(decide([(question.claim, question.difference) for question in tested]))
    return tuple(question if isinstance(question, Verdict) else _verdict(question, next(decided)) for question in asked)


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the verdict on a claim: reproduced if every rule is, not reproduced if one is not."""
    order: tuple[Outcome, ...] = ("missing", "not reproduced", "undecided", "equal")
    for outcome in order:
        if outcome in outcomes:
            return outcome
    return "reproduced" if outcomes else "undecided"


def _tested(rule: Rule, table: PublishedTable, rows: Mapping[str, Measured]) -> _Tested:
    assert not isinstance(rule, Misses | Reaches)
    rival = rule.to if isinstance(rule, Equal) else rule.than
    ours, theirs = rows[rule.row], rows[rival]
    first, second = table.row(rule.row).name, table.row(rival).name
    if isinstance(rule, Cheaper):
        return _Tested(f"{first} costs less than {second}", Above(), _ratio(rule, ours, theirs), None)
    measure = table.measures[0]
    sign = 1 if measure.higher_is_better else -1
    found = difference(ours.values(measure), theirs.values(measure))
    found = -found if found is not None and sign < 0 else found
    if isinstance(rule, Equal):
        return _Tested(f"{first} is within {rule.within:g} of {second}", Within(rule.within), found, sign)
    question = f"{first} beats {second}" + (f" by more than {rule.by:g}" if rule.by else "")
    margin = MARGIN if not rule.by and measure.field.endswith("_percent") else None
    return _Tested(question, Above(rule.by, margin), found, sign)


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


def _ratio(rule: Cheaper, ours: Measured, theirs: Measured) -> Difference | None:
    """Compare costs by the logarithm of their ratio, as costs differ by factors."""
    return difference(
        *(
            {seed: math.log(days) for seed, days in measured.days(rule.stages).items() if days > 0}
            for measured in (theirs, ours)
        )
    )


def _verdict(asked: _Tested, decided: Decided) -> Verdict:
    found = asked.difference
    if found is None:
        without = "with a cost" if asked.sign is None else "with one seed"
        return Verdict(asked.question, "missing", f"no pair of trials {without}")
    if asked.sign is None:
        shown = f"{math.exp(found.mean):.3g} times"
        half = "" if decided.half is None else f", x/÷ {math.exp(decided.half):.2f}"
    else:
        shown = f"{asked.sign * found.mean:+.2f}"
        half = "" if decided.half is None else f" ± {decided.half:.2f}"
    p = "" if decided.p is None else f", {p_value(decided.p)}"
    within = f", within {MARGIN:g}" if decided.decision == "equal" else ""
    return Verdict(asked.question, _OUTCOMES[decided.decision], f"{shown}{half} (n = {found.n}{p}{within})")
