"""What rehearsals have measured, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dms_bench.config import Suite, Trial

if TYPE_CHECKING:
    from dms_bench.runtime.rehearse import Outcome
    from dms_bench.trial.rehearsal.projection import Projection
    from dms_bench.trial.rehearsal.record import Rehearsed

_GIB = 2**30
_Known = Mapping[str, "tuple[Rehearsed, str]"]


def time_of(trial: Trial | None, known: _Known) -> str:
    """Return the time of a trial, without what it shares with others, where its kind was rehearsed."""
    from dms_bench.trial.rehearsal.kinds import kind_of

    kind = kind_of(trial) if trial is not None else ""
    return f"measured {duration(known[kind][0].seconds('trial'))}" if kind in known else "estimated"


def measured_lines(suite: Suite, known: _Known) -> list[str]:
    """Return what is known of a whole suite; nothing where nothing of it was rehearsed."""
    from dms_bench.trial.rehearsal.kinds import kinds
    from dms_bench.trial.rehearsal.projection import project

    there = kinds(suite)
    machines = {known[kind.key][1]: known[kind.key][0].date for kind in there if kind.key in known}
    if not machines:
        return []
    projection = project(there, {key: kind for key, (kind, _) in known.items()})
    where = ", ".join(f"{machine} ({date})" for machine, date in machines.items())
    return [f"measured on {where}: {days_of(projection)}", *left_out(projection, "only estimated")]


def projected(outcome: Outcome) -> list[str]:
    """Return what a suite takes on the devices that it gets."""
    projection, lines = outcome.projection, []
    if projection.pieces:
        wall = duration(projection.wall_seconds(outcome.devices))
        needed, left = outcome.disk
        lines += [
            f"projected: {days_of(projection)}; {wall} on {outcome.devices:g} of them",
            f"disk: {size(needed)} needed, {size(left)} left",
        ]
    lines += left_out(projection, "not in it")
    if any(kind.workers_for_one > 1 for kind in outcome.rehearsal.kinds):
        lines.append("one worker was rehearsed for several: what they exchange is not in it")
    return lines


def days_of(projection: Projection) -> str:
    """Return the time of all trials on one device, and that of their stages."""
    days = ", ".join(f"{_of_days(days)} of {device}" for device, days in projection.device_days.items())
    stages = ", ".join(f"{name} {_of_days(each)}" for name, each in projection.days_by_stage.items())
    return f"{days} ({stages})"


def _of_days(days: float) -> str:
    return duration(days * 86400)


def left_out(projection: Projection, as_what: str) -> list[str]:
    """Return how many trials were not rehearsed, where some were not."""
    trials = sum(kind.count for kind in projection.unknown)
    if not trials:
        return []
    return [f"{as_what}: {trials} trial{'s' * (trials != 1)} of kinds that no rehearsal has brought to their end"]


def duration(seconds: float | None) -> str:
    """Write a time in the unit that suits it."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def size(number: float) -> str:
    """Write bytes in the unit that suits them; `-` for none."""
    if not number:
        return "-"
    return f"{number / _GIB:.3g} GiB" if number >= _GIB / 10 else f"{number / 2**20:.3g} MiB"
