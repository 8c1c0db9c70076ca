"""Coarse spaces (section 3, table 16): runs of elements that stay or go together, bounds on how many, equal widths."""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dms_bench.scaling.space.elements import Group, Stage

#: Why a group with bounds that leave no choice is not searched.
NO_CHOICE = "its bounds leave nothing to choose"


class CoarseError(ValueError):
    """A rule that no group or stage fits, or that does not fit one."""


@dataclass(frozen=True)
class Coarse:
    """How coarsely some groups or stages are searched; of several rules for one, the first counts.

    Attributes:
        groups: shell-style pattern of names of width groups, or
        stages: of names of stages; one of the two.
        step: elements (channels, heads) that share importance and mask; blocks are searched one by one.
        min: fewest elements or blocks that stay.
        max: most that stay; all where it is not given.
        equal: all of these groups keep equally many, each its own most important ones.
    """

    groups: str | None = None
    stages: str | None = None
    step: int = 1
    min: int = 0
    max: int | None = None
    equal: bool = False


def coarsened(group: Group, rules: Sequence[Coarse]) -> Group:
    """Return a group in the runs and bounds that the rules give it; its size is the number of runs then.

    Raises:
        CoarseError: its elements cannot be divided into such runs.
    """
    rule = _first(group.name, rules, "groups")
    if rule is None:
        return group
    size, step = group.members, math.lcm(group.step, rule.step)
    if size % step:
        near = [divisor for divisor in range(1, size + 1) if size % divisor == 0]
        nearest = sorted(near, key=lambda divisor: abs(divisor - step))[:2]
        choice = " or ".join(map(str, sorted(nearest)))
        raise CoarseError(f"groups {rule.groups!r}: {size} elements of {group.name} in runs of {step}; try {choice}")
    runs = size // step
    most = runs if rule.max is None else max(1, min(runs, rule.max // step))
    fewest = min(math.ceil(max(rule.min, group.minimum * group.step) / step), runs)
    tie = rule.groups or "" if rule.equal else ""
    return replace(group, size=runs, step=step, minimum=min(fewest, most), maximum=most, tie=tie)


def bounded(stage: Stage, rules: Sequence[Coarse]) -> Stage:
    """Return a stage with the bounds that the rules give it; what its network needs stays."""
    rule = _first(stage.name, rules, "stages")
    if rule is None:
        return stage
    most = stage.size if rule.max is None else max(stage.minimum, min(stage.size, rule.max))
    return replace(stage, minimum=min(max(stage.minimum, rule.min), most), maximum=most)


def check_ties(groups: Iterable[Group]) -> None:
    """Make sure that groups that are to keep equally many can.

    Raises:
        CoarseError: some cannot.
    """
    first: dict[str, Group] = {}
    for group in groups:
        like = first.setdefault(group.tie, group)
        if group.tie and (group.size, group.minimum, group.maximum) != (like.size, like.minimum, like.maximum):
            sizes = f"{like.members} elements of {like.name}, {group.members} of {group.name}"
            raise CoarseError(f"groups {group.tie!r} cannot keep equally many: {sizes}")


def check_rules(rules: Sequence[Coarse], groups: Iterable[str], stages: Iterable[str]) -> None:
    """Make sure that every rule has something to act on.

    Raises:
        CoarseError: one has not.
    """
    for kind, names in (("groups", list(groups)), ("stages", list(stages))):
        for pattern in (getattr(rule, kind) for rule in rules):
            if pattern is not None and not fnmatch.filter(names, pattern):
                near = difflib.get_close_matches(pattern, names, n=2, cutoff=0.3) or names[:3]
                hint = f"; there are {len(names)}, such as {', '.join(map(repr, near))}" if names else ""
                raise CoarseError(f"no {kind} are called {pattern!r}{hint}")


def _first(name: str, rules: Sequence[Coarse], kind: str) -> Coarse | None:
    fits = (rule for rule in rules if (pattern := getattr(rule, kind)) and fnmatch.fnmatchcase(name, pattern))
    return next(fits, None)
