"""What a task's functions compute, as counted: samples of the data, and MACs against PyTorch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dms_bench.config.method import USES
from dms_bench.config.plugins import METHODS, registered
from dms_bench.methods.gradient.spec import Dms
from dms_bench.methods.gradient.structure import DmsStructure
from dms_bench.methods.sampling.spec import RandomSearch
from dms_bench.scaling import Supernet, budget_of, find_space
from dms_bench.trial.counted_task import counted
from dms_bench_tasks.classification.recipe import ClassificationRecipe
from dms_bench_tasks.classification.spec import ClassificationTask
from dms_bench_tasks.classification.task import Classification
from tests.unit.classification.classification_helpers import CPU, GLYPHS, TINY, MemoryLoop
from tests.unit.language import language_helpers

TRAIN, VAL = 96, 40


class Passes:
    """Adds up what is counted."""

    def __init__(self) -> None:
        self.samples, self.macs = 0, 0.0

    def __call__(self, samples: int, macs: float) -> None:
        self.samples += samples
        self.macs += macs


def classification():
    passes = Passes()
    return counted(Classification(ClassificationTask(data=GLYPHS), 0), passes), passes


def recipe(epochs=2):
    return ClassificationRecipe(epochs=epochs, batch_size=32, lr=0.05)


def test_measuring_counts_every_sample_once_by_pytorchs_own_counter():
    task, passes = classification()
    model = task.build(TINY)
    with FlopCounterMode(display=False) as counter:
        task.evaluate(model, "val", CPU)
    assert passes.samples == VAL
    # The other counter has also seen the one sample by which the network's MACs are found.
    assert passes.macs == pytest.approx(counter.get_total_flops() / 2 * VAL / (VAL + 1))
    assert not model._forward_hooks, "nothing is left on the network"


def test_training_counts_three_passes_and_its_measuring_one():
    task, passes = classification()
    model = task.build(TINY)
    macs = counted_macs(model, task.example_input(1))
    task.fit(model, recipe(), MemoryLoop())
    assert passes.samples == 2 * (TRAIN + VAL)
    assert passes.macs == pytest.approx(2 * (3 * TRAIN + VAL) * macs)


@pytest.mark.parametrize(("pipeline", "times"), [("DMSp", 3), ("DMSp-", 2)])
def test_a_search_counts_the_whole_supernet_and_no_gradients_of_frozen_weights(pipeline, times):
    task, passes = classification()
    model = task.build(TINY)
    space = find_space(model, task.example_input())
    supernet = Supernet(model, space)
    structure = DmsStructure(supernet, Dms(), budget_of(space, macs=0.5), trains_weights=pipeline == "DMSp")
    task.fit(supernet, recipe(1), MemoryLoop(), structure)
    assert passes.samples == TRAIN + VAL
    assert passes.macs == pytest.approx((times * TRAIN + VAL) * space.macs)


def test_losses_count_as_far_as_they_are_taken():
    task, passes = classification()
    model = task.build(TINY)
    macs = counted_macs(model, task.example_input(1))
    losses = task.losses(model, 2, CPU)
    next(losses)
    losses.close()
    assert passes.samples == min(64, TRAIN)
    with torch.no_grad():
        list(task.losses(model, 1, CPU))
    assert passes.macs == pytest.approx(min(64, TRAIN) * macs * (3 + 1))
    assert not model._forward_hooks


def test_sequences_are_samples_of_a_language_model():
    passes = Passes()
    task = counted(language_helpers.task(), passes)
    model = language_helpers.network()
    with torch.no_grad():
        list(task.losses(model, 2, CPU))
    assert passes.samples == 2 * 16
    macs = counted_macs(model, task.example_input(1))
    assert passes.macs == pytest.approx(2 * 16 * macs)


def test_workers_count_alike():
    passes = Passes()
    task = counted(Classification(ClassificationTask(data=GLYPHS), 0), passes, 3)
    task.evaluate(task.build(TINY), "val", CPU)
    assert passes.samples == 3 * VAL


def test_every_method_says_what_its_search_uses():
    for kind, spec in registered(METHODS).items():
        if spec.__module__.startswith("dms_bench."):
            given = (
                {"model": "resnet18"}
                if kind == "designed"
                else {"proposals": ["dms", "l1"]}
                if kind == "halving"
                else {}
            )
            uses = spec(**given).uses
            assert uses is not None, kind
            assert list(uses) == [use for use in USES if use in uses], f"{kind}: in the order of USES"
            assert ("training" in uses) is spec.trains_in_search, kind
    assert RandomSearch(score="shared").uses == ("weights", "data", "validation")
    assert RandomSearch(score="zen").uses == ("weights",)


def counted_macs(model: nn.Module, example: torch.Tensor) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(example)
    model.train()
    return counter.get_total_flops() / 2
