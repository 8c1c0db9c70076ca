"""The checks let methods pass that keep their promises, and name the promise that another breaks."""

from __future__ import annotations

import pytest
from dms_bench_waves.spec import WavesTask

from dms_bench.methods.controls.spec import Random
from dms_bench.methods.gradient.spec import Dms
from dms_bench.testing import check_method
from tests.unit.testing.broken import BrokenMethod

SMALL = {"task": WavesTask(samples=128), "supernet": {"model": "mlp"}, "recipe": {"epochs": 1}}

BROKEN = {
    "budget": r"the budget is met within 1 %: the network found has 6,400 macs in place of 3,200",
    "weights": r"unless the method trains \(trains_in_search\): the search has changed '0\.bias', by up to",
    "mode": r"the search has changed the mode \(train or eval\) of 'the network'",
    "hooks": r"the search has changed the hooks of '0'",
    "twice": r"the same architecture is returned when it is asked twice: a second search kept other elements of group",
    "generator": r"everything random derives from context\.generator\(\): with the global .* a search kept other",
    "workers": r"all workers return the same architecture: one of two kept other elements of group",
}


def test_a_control_keeps_its_promises_on_a_residual_network() -> None:
    check_method(Random())


def test_a_search_that_trains_keeps_its_promises() -> None:
    check_method(Dms(), **SMALL)


@pytest.mark.parametrize("breaks", BROKEN)
def test_a_broken_promise_is_named(breaks: str) -> None:
    with pytest.raises(AssertionError, match=f"^method 'broken': .*{BROKEN[breaks]}"):
        check_method(BrokenMethod(breaks=breaks), **SMALL)
