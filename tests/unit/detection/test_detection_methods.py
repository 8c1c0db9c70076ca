"""Methods that look at a network without training it find architectures of detection networks, too."""

from types import SimpleNamespace

import pytest

from dms_bench.methods.base import SearchContext
from dms_bench.methods.rankings.search import GroupNormSearch, MagnitudeSearch, TaylorSearch
from dms_bench.methods.rankings.spec import L1, GroupNorm, Taylor
from dms_bench.scaling import budget_of, count, cut, find_space
from tests.unit.detection.detection_helpers import CPU, TINY, task


@pytest.mark.parametrize(
    ("search", "spec"), [(MagnitudeSearch, L1()), (GroupNormSearch, GroupNorm()), (TaylorSearch, Taylor())]
)
def test_a_ranking_meets_the_budget(search, spec):
    own = task()
    model = own.build(TINY)
    space = find_space(model, own.example_input())
    budget = budget_of(space, macs=0.5)
    loop = SimpleNamespace(device=CPU, tick=lambda: None)
    context = SearchContext(SimpleNamespace(seed=0), own, model, space, budget, loop)
    architecture = search(spec).search(context)
    counted = count(cut(model, space, architecture), own.example_input(1))
    assert counted.macs == pytest.approx(0.5 * space.macs, rel=0.01)
    assert len({len(kept) for kept in architecture.groups.values()}) > 1
