"""What `dms-bench doctor` finds, and what it makes of the kernels' answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dms_bench.kernels.cases import Case
from dms_bench.kernels.guard import UPSTREAM, endangered_case
from dms_bench.kernels.probe import Outcome


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's."""

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str
    #: What to do about it; empty where nothing is to be done.
    advice: str = ""


def judge(bare: Sequence[Outcome], guarded: Sequence[Outcome], where: str) -> list[Finding]:
    """Say what wrong kernels mean for this project.

    Args:
        bare: what PyTorch computes as it is.
        guarded: the same cases as this project has them computed.
        where: the device and the cases, in words.
    """
    subject, findings = "kernels", []
    if trouble := _trouble(guarded):
        return [
            Finding(
                "error",
                subject,
                f"{where}: {trouble}, also as dms_bench runs it: results of such networks would be wrong",
                "try another version of torch, or another device, and please report it with this line",
            )
        ]
    if trouble := _trouble(bare):
        known = all(endangered_case(case) for case in _cases(bare))
        source = f" ({UPSTREAM})" if known else ""
        findings.append(
            Finding(
                "warning",
                subject,
                f"{where}: PyTorch's own kernel is wrong here: {trouble}{source}; "
                "dms_bench runs such layers in contiguous layout: checked, right",
                "nothing to do here; call dms_bench.kernels.guard() in training code of your own",
            )
        )
    tried, asked = sum(outcome.tried for outcome in guarded), sum(outcome.asked for outcome in guarded)
    right = f"{where}: {tried} layers, output and gradients right"
    if tried < asked:
        message = f"{right}; {asked - tried} were not tried for want of time"
        return [*findings, Finding("warning", subject, message, "ask again when this machine is less busy")]
    return [*findings, Finding("ok", subject, right)]


def _cases(outcomes: Sequence[Outcome]) -> list[Case]:
    wrong = [case for outcome in outcomes for case, _ in outcome.wrong]
    return wrong + [case for outcome in outcomes for case, _, _ in outcome.deaths]


def _trouble(outcomes: Sequence[Outcome]) -> str:
    """Say what is wrong: the worst case and every kind of death; empty if nothing is."""
    parts = []
    wrong = [(max(errors.values()), case, errors) for outcome in outcomes for case, errors in outcome.wrong]
    if wrong:
        _, case, errors = max(wrong, key=lambda entry: _size(entry[0]))
        deviations = ", ".join(f"{name} off by {error:.2g}" for name, error in errors.items())
        parts.append(f"{case}: {deviations} (relative), {len(wrong)} such cases")
    deaths = {name: (case, line) for outcome in outcomes for case, name, line in outcome.deaths}
    parts += [f"{name} at or before {case}" + (f": {line!r}" if line else "") for name, (case, line) in deaths.items()]
    return "; ".join(parts)


def _size(error: float) -> float:
    return error if error == error else float("inf")  # NaN is the worst
