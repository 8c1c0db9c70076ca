import json
import time

import pytest

from dms_bench.trial import meter as meter_module
from dms_bench.trial.group import Hardware
from dms_bench.trial.meter import Meter, attempts, costs

CPU = Hardware("Some CPU", "cpu", 2.0)
GPU = Hardware("Some GPU", "gpu", 1.0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless the test moves it."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

        def process_time(self):
            return self.now / 4

    clock = Clock()
    monkeypatch.setattr(meter_module, "time", clock)
    return clock


def _attempt(folder, clock, hardware, **seconds):
    with Meter(folder, hardware) as meter:
        for stage, spent in seconds.items():
            with meter.stage(stage):
                clock.now += spent
            clock.now += 1000  # between stages nothing is charged


def test_costs_are_summed_over_attempts_stage_by_stage(folder, clock):
    _attempt(folder, clock, CPU, search=10.0)
    _attempt(folder, clock, CPU, search=5.0, retrain=7.0)
    found = {cost.stage: cost for cost in costs(folder)}
    assert found["search"].seconds == pytest.approx(15.0)
    assert found["search"].attempts == 2
    assert found["retrain"].seconds == pytest.approx(7.0)
    assert found["retrain"].attempts == 1
    assert found["search"].device_days == pytest.approx(2 * 15 / 86400)


def test_time_on_a_cpu_is_never_added_to_time_on_a_gpu(folder, clock):
    _attempt(folder, clock, CPU, search=10.0)
    _attempt(folder, clock, GPU, search=5.0)
    assert {(cost.kind, cost.device, cost.devices, cost.seconds) for cost in costs(folder)} == {
        ("cpu", "Some CPU", 2.0, 10.0),
        ("gpu", "Some GPU", 1.0, 5.0),
    }


def test_a_stage_that_is_entered_twice_is_charged_twice(folder, clock):
    with Meter(folder, CPU) as meter:
        for spent in (2.0, 3.0):
            with meter.stage("evaluate"):
                clock.now += spent
    assert [cost.seconds for cost in costs(folder)] == [5.0]


def test_a_stage_that_fails_is_charged(folder, clock):
    def diverge():
        with Meter(folder, CPU) as meter, meter.stage("search"):
            clock.now += 3.0
            raise ValueError("NaN")

    with pytest.raises(ValueError, match="NaN"):
        diverge()
    assert [(cost.stage, cost.seconds) for cost in costs(folder)] == [("search", 3.0)]


def test_an_attempt_that_is_killed_is_charged_up_to_its_last_beat(folder, monkeypatch):
    monkeypatch.setattr(meter_module, "_BEAT_SECONDS", 0.05)
    with Meter(folder, CPU) as meter, meter.stage("search"):
        started = time.monotonic()
        meter.tick()
        meter.epoch(1, {"val": 0.5})
        while True:
            time.sleep(0.05)
            seen = attempts(folder)[0]  # what another process would find if this one died here
            if seen.seconds["search"] > 0.2:
                break
            assert time.monotonic() < started + 30
        assert seen.seconds["search"] <= time.monotonic() - started
        assert (seen.stage, seen.epoch, seen.steps, seen.metrics) == ("search", 1, 1, {"val": 0.5})


def test_an_emptied_file_does_not_hide_the_other_attempts(folder, clock):
    _attempt(folder, clock, CPU, search=10.0)
    _attempt(folder, clock, CPU, search=5.0)
    (folder.attempts / "0001.json").write_text("")
    assert [cost.seconds for cost in costs(folder)] == [5.0]
    _attempt(folder, clock, CPU, search=1.0)
    assert (folder.attempts / "0003.json").exists()
    assert json.loads((folder.attempts / "0002.json").read_text())["seconds"] == {"search": 5.0}


def test_workers_that_do_not_lead_write_nothing(folder, clock):
    with Meter(folder, CPU, writes=False) as meter, meter.stage("search"):
        clock.now += 1
    assert not folder.path.exists()


def test_a_stage_within_another_is_charged_to_itself_alone(folder, clock):
    with Meter(folder, CPU) as meter, meter.stage("search"):
        clock.now += 2
        with meter.stage("predictor"):
            clock.now += 30
        clock.now += 5
        with meter.stage("predictor"):
            clock.now += 10
    assert {cost.stage: cost.seconds for cost in costs(folder)} == {"search": 7.0, "predictor": 40.0}
    assert attempts(folder)[-1].stage == "search"


def test_time_of_processors_is_what_they_worked_in_the_stage_and_not_what_passed(folder):
    def work(seconds):
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass

    with Meter(folder, CPU) as meter:
        with meter.stage("search"):
            work(0.2)
            time.sleep(0.5)
            with meter.stage("predictor"):
                work(0.1)
        work(0.3)
    of = {cost.stage: cost for cost in costs(folder)}
    assert of["search"].processor_seconds == pytest.approx(0.2, abs=0.1)
    assert of["predictor"].processor_seconds == pytest.approx(0.1, abs=0.08)
    assert of["search"].seconds > 0.65


def test_an_attempt_from_before_it_was_measured_leaves_the_time_of_processors_unknown(folder, clock):
    _attempt(folder, clock, CPU, search=8.0)
    assert [cost.processor_seconds for cost in costs(folder)] == [2.0]
    (path,) = folder.attempts.glob("*.json")
    record = json.loads(path.read_text())
    del record["processor_seconds"]
    path.write_text(json.dumps(record))
    _attempt(folder, clock, CPU, search=8.0)
    assert [(cost.seconds, cost.processor_seconds) for cost in costs(folder)] == [(16.0, None)]
