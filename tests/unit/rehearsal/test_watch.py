"""Who looks on cuts passes short, tells waiting from work, and asks a loader what it can give."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dms_bench import pace
from dms_bench.trial.rehearsal import watch
from dms_bench.trial.rehearsal.watch import Onlooker

TICK = 0.01


class Clock:
    """Time that passes when somebody sleeps, so that a busy machine changes nothing."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


time = Clock()


@pytest.fixture
def onlooker(monkeypatch: pytest.MonkeyPatch) -> Onlooker:
    monkeypatch.setattr(watch, "time", time)
    return Onlooker(2, torch.device("cpu"), {"predictor": 20.0}, lambda: None)


def slow(count: int, seconds: float) -> Iterator[int]:
    for number in range(count):
        time.sleep(seconds)
        yield number


def test_without_a_watch_nothing_happens():
    batches = [1, 2, 3]
    assert list(pace.paced(batches, 3, size=1)) == batches
    with pace.stage("search"):
        assert pace.current() is None


def test_a_pass_ends_after_the_steps_that_count_and_one_before(onlooker):
    with pace.watched_by(onlooker), onlooker.stage("search"), onlooker.call("training", 4) as call:
        assert list(pace.paced(range(100), 100, size=8)) == [0, 1, 2]
        assert list(pace.paced(range(100), 100, size=8, parts=2)) == [0, 1, 2, 3, 4, 5]
        assert list(pace.paced(range(2), 2, size=8)) == [0, 1]
        assert list(pace.paced(iter(range(9)), None, size=8)) == list(range(9))  # nobody knows where it ends
    assert [(one.whole, one.samples, len(one.steps)) for one in call.passes] == [
        (100, 8, 3),
        (50, 16, 3),
        (2, 8, 2),
        (None, 8, 9),
    ]


def test_waiting_is_told_from_work(onlooker):
    with pace.watched_by(onlooker), onlooker.stage("search"), onlooker.call("training", 1) as call:
        for _ in pace.paced(slow(50, 2 * TICK), 50, size=4):
            time.sleep(5 * TICK)
    (one,) = call.passes
    assert one.wait == pytest.approx(2 * TICK)
    assert one.compute == pytest.approx(5 * TICK)
    assert one.seconds == pytest.approx(3 * 7 * TICK)
    assert one.loaded is None


def test_a_loader_is_asked_what_it_can_give_on_nobodys_time(onlooker):
    with pace.watched_by(onlooker), onlooker.stage("search"), onlooker.call("training", 1) as call:
        for _ in pace.paced(slow(50, 4 * TICK), 50, size=10, ahead=3):
            pass
    (one,) = call.passes
    assert one.loaded == pytest.approx(10 / (4 * TICK))
    assert call.seconds == pytest.approx(3 * 4 * TICK)  # without the six batches that were only looked at
    assert onlooker.stages[0].seconds == pytest.approx(call.seconds)


def test_a_loader_with_too_few_batches_is_not_judged(onlooker):
    with pace.watched_by(onlooker), onlooker.stage("search"), onlooker.call("training", 1) as call:
        assert len(list(pace.paced(range(5), 5, size=10, ahead=4))) == 3
    assert call.passes[0].loaded is None


def test_calls_that_take_turns_have_their_own_passes(onlooker):
    def losses(purpose: str) -> Iterator[int]:
        with onlooker.call(purpose):
            yield from pace.paced(range(9), 9, size=1)

    with pace.watched_by(onlooker), onlooker.stage("search"):
        first, second = losses("first"), losses("second")
        assert next(first) == next(second) == 0
        assert list(first) == list(second) == [1, 2]
        with onlooker.call("third") as third:
            assert list(pace.paced(range(2), 2, size=1)) == [0, 1]
    assert [len(call.passes) for call in onlooker.stages[0].calls] == [1, 1, 1]
    assert len(third.passes[0].steps) == 2


def test_a_stage_within_another_is_charged_for_itself_alone(onlooker):
    with pace.watched_by(onlooker), onlooker.stage("search"):
        time.sleep(2 * TICK)
        with pace.stage("predictor"):
            assert onlooker.at == "predictor"
            time.sleep(5 * TICK)
        time.sleep(2 * TICK)
    search, predictor = onlooker.stages
    assert search.seconds == pytest.approx(4 * TICK)
    assert predictor.seconds == pytest.approx(5 * TICK)
    assert (search.times, predictor.times) == (1.0, 20.0)
    assert onlooker.at == ""
    assert pace.current() is None


def test_memory_is_that_of_each_stage(onlooker):
    with onlooker.stage("large"):
        held = torch.ones(60_000_000)
        del held
    with onlooker.stage("small"):
        pass
    large, small = onlooker.stages
    assert large.host_bytes - small.host_bytes > 200e6


def test_items_that_are_no_batches_are_completed(onlooker):
    with pace.watched_by(onlooker), onlooker.stage("evaluate"), onlooker.call("evaluation on test") as call:
        asked = onlooker.few()
        time.sleep(10 * TICK)
        onlooker.worked_on(asked, 100 * asked)
    assert call.full() == pytest.approx(call.seconds + 99 * 10 * TICK)
