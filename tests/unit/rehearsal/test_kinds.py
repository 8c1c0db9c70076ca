"""Which trials are one kind: those that do the same in every step."""

from __future__ import annotations

from typing import Any

import pytest

from dms_bench.config import parse_suite
from dms_bench.trial.rehearsal.kinds import kind_of, kinds

RECIPE = {"epochs": 2, "lr": 0.1, "batch_size": 64}


def suite(*experiments: dict[str, Any]) -> Any:
    """Return a suite of these experiments, each laid over an ordinary one."""
    ordinary = {
        "task": {"kind": "classification", "data": {"name": "glyphs", "train": 64, "val": 16, "test": 16}},
        "supernet": {"model": "resnet18"},
        "budget": {"kind": "macs", "target": "30%"},
        "method": "dms",
        "search": RECIPE,
        "retrain": RECIPE,
    }
    named = [ordinary | {"name": f"e{number}"} | fields for number, fields in enumerate(experiments)]
    return parse_suite({"name": "suite", "experiments": named})


def test_budgets_seeds_temperatures_and_learning_rates_are_one_kind():
    grid = {
        "budget": [{"kind": "macs", "target": target} for target in ("30%", "70%", "50%")],
        "seed": [0, 1],
        "method.temperature": [0.5, 2.0],
        "retrain.lr": [0.1, 0.2],
    }
    (kind,) = kinds(suite({"sweep": {"grid": grid}}))
    assert kind.count == len(kind.trials) == 24
    assert kind.example.budget.label() == "macs 70%"  # the largest network of the kind
    assert kind.experiments == ["e0"]


def test_experiments_that_compute_alike_are_one_kind():
    (kind,) = kinds(suite({}, {"budget": {"kind": "macs", "target": "40%"}}))
    assert kind.experiments == ["e0", "e1"]
    assert kind.name == "e0 dms"


@pytest.mark.parametrize(
    "other",
    [
        {"method": "random"},
        {"supernet": {"model": "resnet34"}},
        {"pipeline": "DMSp", "pretrain": RECIPE},
        {"budget": {"kind": "params", "target": "30%"}},
        {"retrain": RECIPE | {"amp": "bf16"}},
        {"retrain": RECIPE | {"batch_size": 32}},
        {"retrain": RECIPE | {"model_ema_decay": 0.99}},
        {"search": RECIPE | {"epochs": 3}},
        {"resources": {"workers": 2}},
        {"task": {"kind": "classification", "image_size": 64, "data": {"name": "glyphs", "train": 64}}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_changes_a_step_is_another_kind(other):
    assert len(kinds(suite({}, other))) == 2


def test_kinds_of_one_name_are_numbered():
    grid = {"method": [{"kind": "dms"}, {"kind": "dms", "importance": "fisher"}]}
    assert [kind.name for kind in kinds(suite({"sweep": {"grid": grid}}))] == ["e0 dms", "e0 dms #2"]


def test_samples_count_as_many_times_as_they_are_drawn():
    sample = {"samples": 7, "space": {"retrain.lr": {"low": 0.1, "high": 0.2}}}
    (kind,) = kinds(suite({"sweep": {"sample": sample}}))
    assert kind.count == 7
    assert len(kind.trials) == 1


def test_where_data_lie_makes_no_kind():
    data = {"name": "timm", "classes": 10, "train_images": 100, "splits": {"val": "val", "test": "test"}}
    there, here = (
        kinds(suite({"task": {"kind": "classification", "data": data | {"root": root, "workers": workers}}}))
        for root, workers in (("/far/cars", 2), ("/near/cars", 8))
    )
    assert there[0].key == here[0].key == kind_of(here[0].example)
