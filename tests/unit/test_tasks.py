"""The protocol of tasks is all that dms_bench calls, and a class that does not have it is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from dms_bench_waves.spec import WavesTask
from dms_bench_waves.task import Waves

from dms_bench.config.task import TaskSpec
from dms_bench.errors import UserError
from dms_bench.tasks import Deployed, Described, Task, make_task

ROOT = Path(__file__).parents[2]
CALLERS = [
    path
    for part in ("trial", "deploy", "runtime", "methods", "cli")
    for path in (ROOT / "dms_bench" / part).rglob("*.py")
]
PROTOCOL = {name for name in vars(Task) if not name.startswith("_")}
#: What a task may have besides, and is asked for by its type before it is called.
OPTIONAL = {name for own in (Deployed, Described) for name in vars(own) if not name.startswith("_")}


class Inheriting(Task):
    """Takes the declarations for the functions."""

    def __init__(self, spec: TaskSpec, seed: int) -> None: ...

    def train_samples(self) -> int:
        return 1


class InheritingTask(WavesTask):
    implementation: ClassVar[str] = f"{__name__}:Inheriting"

    kind: Literal["inheriting"] = "inheriting"


def test_nothing_is_called_on_a_task_that_the_protocol_does_not_have():
    called = set()
    for path in CALLERS:
        called |= set(re.findall(r"\btask(?:\(\))?\.(\w+)\b(?=[(,)\n])", path.read_text()))
    assert {"train_samples", "build", "fit", "evaluate", "losses"} <= called
    assert called - set(dir(TaskSpec)) - set(TaskSpec.model_fields) <= PROTOCOL | OPTIONAL | {"metric", "libraries"}
    assert called >= PROTOCOL  # nor does it have what nobody calls


def test_a_whole_task_is_made():
    assert isinstance(make_task(WavesTask(), 0), Waves)


def test_declarations_that_are_inherited_are_no_functions():
    with pytest.raises(
        UserError, match=r"^task 'inheriting': its class .*\.Inheriting lacks build\(\), .* and export\(\)$"
    ) as no:
        make_task(InheritingTask(), 0)
    assert "train_samples" not in str(no.value)
    assert str(no.value).count("()") == len(PROTOCOL) - 1
