"""Cutting again until a latency is met as it is measured."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dms_bench.scaling import Budget, Constraint, SearchSpace, find_space
from dms_bench.scaling.fit import fit_to_budget
from dms_bench.scaling.latency.whole import Parts, WholeLatency
from dms_bench.trial import recut as recutting
from dms_bench.trial.recut import CLOSE, MOST, recut, recut_in
from dms_bench.trial.spaces import space_of

WHOLE = 5.0


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 400), nn.ReLU(), nn.Linear(400, 300), nn.ReLU(), nn.Linear(300, 4))
    return find_space(network, torch.randn(2, 8))


@pytest.fixture(scope="module")
def latency(space: SearchSpace) -> WholeLatency:
    """4 ms for the products of the whole network, and 1 ms besides."""
    return WholeLatency(space, [(4.0, 0.0, 0.0, 1.0)[kind] for kind in Parts(space).kinds], WHOLE)


def budget(latency: WholeLatency, target: float, *others: Constraint) -> Budget:
    return Budget((*others, Constraint("latency", latency, target, WHOLE)))


def found(space: SearchSpace, bounds: Budget):
    """What a search comes to: both groups keep almost the same share."""
    order = torch.rand(space.units.total, generator=torch.Generator().manual_seed(0))
    mask = fit_to_budget(space, torch.tensor([200.0, 160.0]), order, bounds)
    return space.architecture(mask), order


def timer(space: SearchSpace, latency: WholeLatency, off: Callable[[float], float]):
    """A clock by which networks take `off` of what the model says; and what it was asked."""
    asked: list[float] = []

    def share(architecture) -> float:
        asked.append(off(space.cost_of(latency, space.mask(architecture))) / WHOLE)
        return asked[-1]

    return share, asked


@pytest.mark.parametrize("off", [lambda ms: 1.2 * ms, lambda ms: 0.8 * ms, lambda ms: 0.7 + 0.9 * ms])
def test_a_network_that_is_off_is_cut_again_at_the_same_ratios(space, latency, off):
    bounds = budget(latency, 3.0)
    architecture, order = found(space, bounds)
    share, asked = timer(space, latency, off)
    again = recut(architecture, space, bounds, order, share)
    assert abs(asked[0] * WHOLE / 3 - 1) > 0.1
    assert abs(off(space.cost_of(latency, space.mask(again))) / 3 - 1) <= CLOSE
    assert 2 <= len(asked) <= 4
    before, after = (space.kept_elements(space.mask(each)) for each in (architecture, again))
    assert float(after[0] / after[1]) == pytest.approx(float(before[0] / before[1]), rel=0.02)
    inner, outer = sorted((space.mask(architecture), space.mask(again)), key=lambda mask: float(mask.sum()))
    assert (inner <= outer).all()  # what was kept is kept as long as anything of its group is


def test_a_network_that_meets_the_target_is_timed_once_and_kept(space, latency):
    bounds = budget(latency, 3.0)
    architecture, order = found(space, bounds)
    share, asked = timer(space, latency, lambda ms: 0.98 * ms)
    assert recut(architecture, space, bounds, order, share) is architecture
    assert len(asked) == 1


def test_readings_that_jump_are_closed_in_on(space, latency):
    """As where some widths fill a vector and others do not: 22 % more by the model are 75 % more on the clock."""
    bounds = budget(latency, 3.0)
    architecture, order = found(space, bounds)
    share, asked = timer(space, latency, lambda ms: 0.8 * ms * (ms / 3.0) ** 1.8)
    again = recut(architecture, space, bounds, order, share)
    assert abs(asked[0] * WHOLE / 3 - 1) > 0.19
    assert abs(share(again) * WHOLE / 3 - 1) <= CLOSE
    assert len(asked) <= 4


def test_the_closest_of_a_bounded_number_is_taken_where_none_is_close(space, latency):
    bounds = budget(latency, 3.0)
    architecture, order = found(space, bounds)
    readings = iter([1.5, 0.6, 1.4, 0.9, 1.6, 0.7, 1.3])
    seen = []

    def share(architecture) -> float:
        seen.append((next(readings), architecture))
        return seen[-1][0] * 3.0 / WHOLE

    again = recut(architecture, space, bounds, order, share)
    assert len(seen) <= MOST + 1
    assert again is min(seen, key=lambda pair: abs(pair[0] - 1))[1]


def test_time_is_left_over_where_another_constraint_binds(space, latency):
    target = 0.3 * space.macs
    bounds = budget(latency, 3.0, Constraint("macs", space.macs_model, target, float(space.macs)))
    architecture, order = found(space, bounds)
    share, asked = timer(space, latency, lambda ms: ms)
    assert recut(architecture, space, bounds, order, share) is architecture
    assert asked == [pytest.approx((1 + 4 * 0.3) / WHOLE, rel=0.01)]


def test_the_leading_worker_measures_and_the_others_take_the_same(toy_trial, group, monkeypatch):
    trial = toy_trial(
        task={"kind": "toy", "width": 64}, budget={"kind": "latency", "target": "60%", "runtime": "onnxruntime"}
    )
    task = trial.task.load_implementation()(trial.task, 0)
    space = space_of(trial.task, trial.supernet)
    model = WholeLatency(space, [(4.0, 0.0, 0.0, 1.0)[kind] for kind in Parts(space).kinds], WHOLE)
    bounds = budget(model, 3.0)
    architecture = space.architecture(
        fit_to_budget(space, torch.tensor([40.0, 60.0]), torch.rand(space.units.total), bounds)
    )
    told: list[str] = []

    class Led(type(group)):
        leads = True

        def gathered(self, text):
            if self.leads:
                told.append(text)
            return [told.pop(0)] if not self.leads else [text]

    class Follows(Led):
        leads = False

    class Beside:
        def __init__(self, *_):
            pass

        def times(self, network, seconds):
            macs = sum(layer.weight.numel() for layer in network.modules() if isinstance(layer, nn.Linear))
            return 1.2 * (1 + 4 * macs / space.macs), WHOLE

    monkeypatch.setattr(recutting, "Beside", Beside)
    groups = [kind(group.device, group.resources) for kind in (Led, Follows)]
    supernet = task.build(trial.supernet)
    ask = [recut_in("onnxruntime", trial, task, supernet, space, bounds, each) for each in groups]
    leading = ask[0](architecture)
    assert leading != architecture
    monkeypatch.setattr(recutting, "Beside", None)  # to measure would be an error
    assert ask[1](architecture) == leading
    assert told == []
