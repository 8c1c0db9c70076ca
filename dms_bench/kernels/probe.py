"""Try layers in processes of their own: what corrupts memory must not take along whoever asks.

`python -m dms_bench.kernels.probe` reads groups of cases (JSON) from its standard input. It imports PyTorch once and
forks for each group, so that it knows how each ended; a group that dies is begun anew behind the case that it died at.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dms_bench.kernels.cases import Case

#: Times that a group is begun anew after a death; what is left then counts as not tried.
_LIVES = 4
_SECONDS = 120.0
#: So that threads that wait for one another leave the processor to others: ten times as fast on busy cores.
_PATIENT = {"OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True)
class Group:
    """Cases for one process."""

    cases: tuple[Case, ...]
    threads: int
    #: With the project's own precautions, or PyTorch as it is.
    guarded: bool
    #: Part of the first case's result that is made wrong on purpose (`check.wrong`), for tests.
    spoil: str | None = None


@dataclass
class Outcome:
    """What came of a group."""

    #: What is wrong, with the relative errors of its parts; none of a case on which the process died.
    wrong: list[tuple[Case, dict[str, float]]] = field(default_factory=list)
    #: Deaths: the case that was under way, the signal, the last line written.
    deaths: list[tuple[Case, str, str]] = field(default_factory=list)
    tried: int = 0


def probe(groups: Sequence[Group], environment: dict[str, str] | None = None) -> list[Outcome]:
    """Try groups of cases, each in a process of its own.

    Args:
        groups: what to try.
        environment: variables for those processes, beside the present ones.

    Raises:
        RuntimeError: the processes could not be started, or took too long; the message has the reason.
    """
    asked = json.dumps([asdict(group) for group in groups])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dms_bench.kernels.probe"],
            input=asked, capture_output=True, text=True, timeout=_SECONDS,
            env={**_PATIENT, **os.environ, **(environment or {})},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer within {_SECONDS:g} s") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return [_read(group, records) for group, records in zip(groups, json.loads(done.stdout), strict=True)]


def _read(group: Group, records: dict[str, Any]) -> Outcome:
    return Outcome(
        [(group.cases[number], errors) for number, errors in records["wrong"]],
        [(group.cases[number], name, line) for number, name, line in records["deaths"]],
        records["tried"],
    )


def _main() -> None:
    groups = [Group(tuple(_case(case) for case in content.pop("cases")), **content) for content in json.load(sys.stdin)]
    print(json.dumps([_try(group) for group in groups]))


def _case(content: dict[str, Any]) -> Case:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    return Case(**fields)


def _try(group: Group) -> dict[str, Any]:
    wrong: list[Any] = []
    deaths: list[Any] = []
    first = 0
    while first < len(group.cases) and len(deaths) < _LIVES:
        status, last, found, line = _life(group, first)
        wrong += found
        first = last + 1
        if status == 0:
            break
        name = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        deaths.append((last, name, line))
    return {"wrong": wrong, "deaths": deaths, "tried": min(first, len(group.cases))}


def _life(group: Group, first: int) -> tuple[int, int, list[Any], str]:
    """Try the cases from `first` in a fork; returns its status, the case it got to, what is wrong, its last line."""
    with tempfile.TemporaryFile("w+") as report, tempfile.TemporaryFile("w+") as words:
        child = os.fork()
        if child == 0:
            os.dup2(words.fileno(), 2)
            status = 1
            try:
                _work(group, first, report)
                status = 0
            finally:
                os._exit(status)
        _, waited = os.waitpid(child, 0)
        report.seek(0)
        lines = [json.loads(line) for line in report if line.endswith("\n")]
        words.seek(0)
        said = [line.strip() for line in words if line.strip()]
    reached = max((number for number, _ in lines), default=first)
    found = [(number, errors) for number, errors in lines if errors]
    return os.waitstatus_to_exitcode(waited), reached, found, said[-1] if said else ""


def _work(group: Group, first: int, report: Any) -> None:
    import torch

    from dms_bench.kernels.check import wrong
    from dms_bench.kernels.guard import guard

    torch.set_num_threads(group.threads)
    if group.guarded:
        guard()
    for number in range(first, len(group.cases)):
        print(json.dumps([number, None]), file=report, flush=True)  # that it is under way
        found = wrong(group.cases[number], group.spoil if number == 0 else None)
        if found:
            print(json.dumps([number, found]), file=report, flush=True)


if __name__ == "__main__":
    _main()
