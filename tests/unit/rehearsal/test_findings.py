"""What is said of kinds that fail, do not fit or starve: the experiment, the field, and what helps."""

from __future__ import annotations

from typing import Any

import pytest

from dms_bench.errors import UserError
from dms_bench.trial.rehearsal.findings import GIB, findings_of, missing
from dms_bench.trial.rehearsal.record import Call, Pass, Rehearsed, Stage, Step


def rehearsed(*stages: Stage, **fields: Any) -> Rehearsed:
    made = {"key": "k", "name": "n", "experiments": ["en-b0", "en-b1"], "trials": 3, "unit": "pictures"}
    return Rehearsed.model_validate(made | {"stages": list(stages)} | fields)


def trains(name: str, host: float, *, device: float = 0.0, loaded: float | None = None) -> Stage:
    """A stage that trains on 64 pictures in 0.1 s, with so many GiB."""
    one = Pass(samples=64, whole=9, steps=[Step(wait=0.0, compute=0.1)] * 3, loaded=loaded)
    call = Call(purpose="training", epochs=2, passes=[one])
    return Stage(part="trial", name=name, calls=[call], host_bytes=int(host * GIB), device_bytes=int(device * GIB))


def test_nothing_is_found_where_nothing_is_wrong():
    assert findings_of([rehearsed(trains("retrain", 2.0, loaded=5000.0))], "A100-40GB") == []


def test_a_loader_that_is_too_slow_starves_and_is_no_reason_to_stop():
    (finding,) = findings_of([rehearsed(trains("search", 2.0, loaded=160.0))])
    assert not finding.fatal
    assert str(finding) == (
        "starves: experiments 'en-b0', 'en-b1', task.data.workers: search could train on 640 pictures/s in each worker "
        "and its loader gives 160: steps take 4 times as long; "
        "4 times as many processes that load (a site file's data.workers), smaller files"
    )


def test_a_loader_that_is_just_fast_enough_does_not_starve():
    assert findings_of([rehearsed(trains("search", 2.0, loaded=620.0))]) == []


def test_what_a_stage_holds_is_compared_with_the_device_it_is_for():
    build = Stage(part="trial", name="build", host_bytes=GIB)
    kind = rehearsed(build, trains("search", 20.0), trains("retrain", 24.0))
    (finding,) = findings_of([kind], "A10G")
    assert finding.fatal
    assert finding.field == "retrain"
    assert "retrain holds about 23.6 GiB, A10G has 22.0" in str(finding)  # 24, less 1 before, and the libraries' 0.6
    assert findings_of([kind], "A100-40GB") == []
    (measured,) = findings_of([rehearsed(build, trains("search", 3.0, device=21.9))], "A10G")
    assert "search holds 22.5 GiB, A10G has 22.0" in str(measured)


@pytest.mark.parametrize(
    ("failure", "what", "field", "helps"),
    [
        ("its process died: ended without a word, as by SIGKILL (kill -9, ...)", "does not fit", "retrain", "grad_acc"),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "does not fit", "retrain", "batch_size"),
        ("budget latency 5ms is out of reach for resnet18: ...", "fails", "budget", "within reach"),
        ("training: the loss is nan in epoch 1, step 1: try a lower lr", "fails", "retrain", "warm-up"),
        ("its process died: SIGABRT, 'corrupt heap'; all that it wrote is in x", "fails", "retrain", "retrain"),
    ],
)
def test_a_failure_names_field_and_remedy(failure, what, field, helps):
    (finding,) = findings_of([rehearsed(failure=failure, at="retrain")])
    assert (finding.what, finding.field) == (what, field)
    assert helps in finding.remedy
    assert failure in str(finding)
    assert finding.fatal


def test_what_is_missing_is_said_of_all_experiments_at_once():
    finding = missing(["a", "b", "c", "d"], "data", "data folder '/none' does not exist")
    assert finding.fatal
    assert str(finding) == (
        "missing: experiments 'a', 'b', 'c' and 1 more, task.data: data folder '/none' does not exist; "
        "put the data there, or say where they are in a site file (--site)"
    )


def test_an_unknown_device_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="--device 'A10': did you mean 'A10G'"):
        findings_of([rehearsed(trains("search", 2.0))], "A10")
