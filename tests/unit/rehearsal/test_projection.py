"""What a few steps say of a whole suite, against sums made by hand."""

from __future__ import annotations

import pytest

from dms_bench.config import parse_suite
from dms_bench.trial.rehearsal.kinds import kinds
from dms_bench.trial.rehearsal.projection import makespan, project
from dms_bench.trial.rehearsal.record import Call, Pass, Rehearsed, Stage, Step


def a_pass(whole: int | None, *steps: tuple[float, float], **fields: float) -> Pass:
    """A pass whose steps wait and compute for so long."""
    made = [Step(wait=wait, compute=compute) for wait, compute in steps]
    return Pass(samples=32, whole=whole, steps=made, seconds=sum(map(sum, steps)), **fields)


def test_a_pass_goes_on_at_the_median_and_warms_up_once():
    one = a_pass(100, (5.0, 9.0), (1.0, 2.0), (1.0, 4.0), (1.0, 3.0))
    assert (one.compute, one.wait, one.step) == (3.0, 1.0, 4.0)
    assert one.excess == 9.0 - 3.0
    # 5 to begin, the first at 3 instead of 9, three of 9 + 3 in all, and 96 at 4.
    assert one.full() == 5 + 3 + (3 + 5 + 4) + 96 * 4
    assert one.needed == 32 / 3
    assert one.had == 32 / 1


def test_a_pass_that_nobody_knows_the_length_of_took_what_it_took():
    assert a_pass(None, (0.0, 2.0), (0.0, 1.0)).full() == 3.0


def test_a_loader_of_processes_waits_for_what_it_cannot_give():
    slow = a_pass(10, (0.0, 1.0), (0.0, 1.0), loaded=16.0)  # 32 pictures take it two seconds
    assert (slow.wait, slow.step) == (1.0, 2.0)
    fast = a_pass(10, (0.0, 1.0), (0.0, 1.0), loaded=320.0)
    assert (fast.wait, fast.step) == (0.0, 1.0)


def test_training_repeats_its_epoch_and_not_what_is_around_it():
    train, validation = a_pass(10, (0.0, 2.0), (0.0, 1.0)), a_pass(5, (0.0, 1.0), (0.0, 1.0))
    # 4 s before the first batch, then 3 + 2 of passes and 1 s for a checkpoint.
    call = Call(purpose="training", epochs=7, seconds=4.0 + 6.0, epoch=6.0, passes=[train, validation])
    # Each epoch: 10 steps, 5 batches of validation, the checkpoint; once: 4 s, and the second of warming up.
    assert call.full() == 4 + 1 + 7 * (10 + 5 + 1)
    # Eight workers share an epoch of 10 steps, of which two were rehearsed: 1.25 + 0.625.
    assert call.full(workers=8) == pytest.approx(4 + 1 + 7 * (1.25 + 0.625 + 1))


def test_an_evaluation_is_completed():
    call = Call(purpose="evaluation on val", seconds=5.0, passes=[a_pass(9, (0.0, 1.0), (0.0, 1.0), (0.0, 1.0))])
    assert call.full(workers=8) == 5.0 + 6 * 1.0  # the leader measures alone
    cold = Call(purpose="losses", seconds=9.0, passes=[a_pass(9, (0.0, 5.0), (0.0, 1.0), (0.0, 1.0))])
    assert cold.full() == 9.0 + 6 * 1.0  # what warms up is done every time


def test_candidates_that_were_left_out_are_counted():
    call = Call(purpose="evaluation on val", seconds=3.0, passes=[a_pass(4, (0.0, 1.0), (0.0, 1.0))])
    assert Stage(part="trial", name="search", seconds=4.0, calls=[call], times=32).full() == 32 * (1.0 + 3.0 + 2.0)


def measured(key: str, **parts: float) -> Rehearsed:
    stages = [Stage(part=part, name=part, seconds=seconds) for part, seconds in parts.items()]
    kept = dict.fromkeys(parts, 1000)
    return Rehearsed(
        key=key, name=key, experiments=["e"], trials=1, device="chip", devices=2.0, stages=stages, kept_bytes=kept
    )


def test_a_suite_counts_shared_work_once_and_starts_in_turn():
    recipe = {"epochs": 1, "lr": 0.1}
    suite = parse_suite(
        {
            "name": "s",
            "experiments": [
                {
                    "name": "e",
                    "task": {"kind": "classification", "data": {"name": "glyphs", "train": 64}},
                    "supernet": {"model": "resnet18"},
                    "pipeline": "DMSp",
                    "budget": {"kind": "macs", "target": "30%"},
                    "pretrain": recipe,
                    "search": recipe,
                    "retrain": recipe,
                    "sweep": {"grid": {"method": ["dms", "random", "uniform"], "seed": [0, 1, 2]}},
                }
            ],
        }
    )
    dms, rest, uniform = kinds(suite)
    found = {dms.key: measured(dms.key, supernet=100.0, trial=10.0), rest.key: measured(rest.key, trial=4.0)}
    projection = project([dms, rest, uniform], found)
    # A supernet for each of three seeds, three trials of each method; uniform was not rehearsed.
    assert [piece.seconds for piece in projection.pieces] == [100, 10, 100, 10, 100, 10, 4, 4, 4]
    assert [kind.key for kind in projection.unknown] == [uniform.key]
    assert projection.device_days == {"chip": pytest.approx(2 * (3 * 100 + 3 * 10 + 3 * 4) / 86400)}
    assert projection.days_by_stage["supernet"] == pytest.approx(600 / 86400)
    # Two devices each: of four, two trials at once.
    assert projection.wall_seconds(4) == 200 + makespan([10, 10, 10, 4, 4, 4], 2)
    assert projection.wall_seconds(2) == 342
    assert projection.disk_bytes(at_once=2) == 9 * 1000

    failed = found | {dms.key: found[dms.key].model_copy(update={"failure": "the loss is nan"})}
    assert {kind.key for kind in project([dms, rest, uniform], failed).unknown} == {dms.key, uniform.key}


def test_work_begins_as_soon_as_there_is_room():
    assert makespan([10, 10, 10, 4, 4, 4], 2) == 22  # the last begins at 18
    assert makespan([3, 2, 1], 3) == 3
    assert makespan([], 3) == 0


def test_the_disk_holds_three_checkpoints_of_each_trial_under_way():
    recipe = {"epochs": 1, "lr": 0.1}
    experiment = {
        "name": "e",
        "task": {"kind": "classification", "data": {"name": "glyphs", "train": 64}},
        "supernet": {"model": "resnet18"},
        "method": "uniform",
        "budget": {"kind": "macs", "target": "30%"},
        "retrain": recipe,
    }
    (kind,) = kinds(parse_suite({"name": "s", "experiments": [experiment]}))
    stage = Stage(part="trial", name="retrain", calls=[Call(purpose="training", epochs=1, checkpoint_bytes=50)])
    rehearsed = measured(kind.key, trial=1.0)
    rehearsed.stages.append(stage)
    assert project([kind], {kind.key: rehearsed}).disk_bytes(at_once=4) == 1000 + 4 * 3 * 50
