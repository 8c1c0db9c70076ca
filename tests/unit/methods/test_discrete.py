"""What every method promises, of those that choose among sizes; and that they search any task's networks."""

from __future__ import annotations

from typing import Any

import pytest
from dms_bench_waves.spec import WavesTask

from dms_bench.config.method import MethodSpec
from dms_bench.errors import UserError
from dms_bench.methods.base import SearchContext
from dms_bench.methods.discrete.spec import JointSteps, Levels, Mip
from dms_bench.scaling import budget_of, count, cut, find_space
from dms_bench.testing import check_method
from tests.unit.classification.classification_helpers import MemoryLoop, same, snapshot
from tests.unit.detection import detection_helpers

SMALL = {"task": WavesTask(samples=128), "supernet": {"model": "mlp"}, "recipe": {"epochs": 1}}
LITTLE: Any = {"generations": 1, "offspring": 3, "images": 64}
FEW: Any = {"steps": 2, "batches": 1, "images": 64}
#: Each with little to do, judged by what any task has.
METHODS: dict[str, MethodSpec] = {
    "mip": Mip(batches=1),
    "levels": Levels(**LITTLE),
    "joint_steps": JointSteps(**FEW),
}
#: Likewise, judged by predictions.
BY_KL: dict[str, MethodSpec] = {
    "mip": Mip(score="kl", levels=2, batches=1, images=64),
    "levels": Levels(fitness="kl", **LITTLE),
    "joint_steps": JointSteps(fitness="kl", **FEW),
}


@pytest.mark.parametrize("name", METHODS)
def test_it_keeps_its_promises(name: str) -> None:
    check_method(METHODS[name], **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("methods", [METHODS, BY_KL], ids=["by default", "by kl"])
def test_it_keeps_its_promises_on_a_residual_network(name: str, methods: dict[str, MethodSpec]) -> None:
    check_method(methods[name])


@pytest.mark.parametrize("name", METHODS)
def test_it_searches_a_detection_network(name: str) -> None:
    own = detection_helpers.task()
    model = own.build(detection_helpers.TINY)
    space = find_space(model, own.example_input())
    budget, before, trial = budget_of(space, macs=0.5), snapshot(model), _trial()
    METHODS[name].check(space, own)
    found = (
        METHODS[name]
        .load_implementation()(METHODS[name])
        .search(
            SearchContext(trial, own, model, space, budget, MemoryLoop())  # type: ignore[arg-type]
        )
    )
    counted = count(cut(model, space, found), own.example_input(1))
    assert counted.macs == pytest.approx(0.5 * space.macs, rel=0.01)
    assert same(before, snapshot(model))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with pytest.raises(UserError, match="compares predictions of one softmax, and this task's outputs are none"):
        BY_KL[name].check(space, own)


def _trial() -> Any:
    class Trial:
        seed = 0

    return Trial()
