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
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dms_bench.kernels.cases import Case

#: A case takes milliseconds; a process that has ruined its heap may wait for a lock for ever.
_SECONDS_OF_A_CASE = 5.0
#: Times that a group is begun anew after a death; what is left then counts as not tried.
_LIVES = 4
_SECONDS = 120.0
#: So that threads that wait for one another leave the processor to others: ten times as fast on busy cores.
_PATIENT = {"OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True)
class ProbeGroup:
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
    #: Cases of the group.
    asked: int = 0


def probe(groups: Sequence[ProbeGroup], environment: dict[str, str] | None = None) -> list[Outcome]:
    """Try groups of cases, each in a process of its own.

    Args:
        groups: what to try.
        environment: variables for those processes, beside the present ones.

    Returns:
        An outcome for each group; those that had no end within two minutes have tried nothing.

    Raises:
        RuntimeError: the processes could not be started; the message has the reason.
    """
    request = json.dumps([asdict(group) for group in groups])
    with subprocess.Popen(
        [sys.executable, "-m", "dms_bench.kernels.probe"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**_PATIENT, **os.environ, **(environment or {})}, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            answer, words = process.communicate(request, timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with its forks, which would go on
            answer, words = process.communicate()
        else:
            if process.returncode:
                raise RuntimeError((words.strip().splitlines() or [f"exit code {process.returncode}"])[-1])
    outcomes = [_read(group, json.loads(line)) for group, line in zip(groups, answer.splitlines(), strict=False)]
    return outcomes + [Outcome(asked=len(group.cases)) for group in groups[len(outcomes) :]]


def _read(group: ProbeGroup, records: dict[str, Any]) -> Outcome:
    return Outcome(
        [(group.cases[number], errors) for number, errors in records["wrong"]],
        [(group.cases[number], name, line) for number, name, line in records["deaths"]],
        records["tried"],
        len(group.cases),
    )


def _main() -> None:
    groups = [
        ProbeGroup(tuple(_case(case) for case in content.pop("cases")), **content) for content in json.load(sys.stdin)
    ]
    for group in groups:
        print(json.dumps(_try(group)), flush=True)


def _case(content: dict[str, Any]) -> Case:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    return Case(**fields)


def _try(group: ProbeGroup) -> dict[str, Any]:
    wrong: list[Any] = []
    deaths: list[Any] = []
    first = 0
    while first < len(group.cases) and len(deaths) < _LIVES:
        status, last, wrong_cases, line = _life(group, first)
        wrong += wrong_cases
        first = last + 1
        if status == 0:
            break
        name = "no end" if status is None else signal.Signals(-status).name if status < 0 else f"exit code {status}"
        deaths.append((last, name, line))
    return {"wrong": wrong, "deaths": deaths, "tried": min(first, len(group.cases))}


def _life(group: ProbeGroup, first: int) -> tuple[int | None, int, list[Any], str]:
    """Try the cases from `first` in a fork; returns its status, the case it got to, what is wrong, its last line."""
    with tempfile.TemporaryFile("w+") as report, tempfile.TemporaryFile("w+") as words:
        child = os.fork()
        if child == 0:
            os.dup2(words.fileno(), 2)
            code = 1
            try:
                _work(group, first, report)
                code = 0
            finally:
                os._exit(code)
        status = _ended(child, report.fileno())
        report.seek(0)
        lines = [json.loads(line) for line in report if line.endswith("\n")]
        words.seek(0)
        stderr_lines = [line.strip() for line in words if line.strip()]
    reached = max((number for number, _ in lines), default=first)
    wrong_cases = [(number, errors) for number, errors in lines if errors]
    return status, reached, wrong_cases, stderr_lines[-1] if stderr_lines else ""


def _ended(child: int, report: int) -> int | None:
    """Wait for a fork and return its exit status; None if its report did not grow for too long, and it was killed."""
    written, since = -1, time.monotonic()
    while True:
        ended, waited = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(waited)
        if (size := os.fstat(report).st_size) != written:
            written, since = size, time.monotonic()
        elif time.monotonic() - since > _SECONDS_OF_A_CASE:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.02)


def _work(group: ProbeGroup, first: int, report: Any) -> None:
    import torch

    from dms_bench.kernels.check import wrong
    from dms_bench.kernels.guard import guard

    torch.set_num_threads(group.threads)
    if group.guarded:
        guard()
    for number in range(first, len(group.cases)):
        print(json.dumps([number, None]), file=report, flush=True)  # that it is under way
        wrong_parts = wrong(group.cases[number], group.spoil if number == 0 else None)
        if wrong_parts:
            print(json.dumps([number, wrong_parts]), file=report, flush=True)


if __name__ == "__main__":
    _main()
