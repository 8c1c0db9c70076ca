"""A trial of a task that needs nothing, and an MLflow store: made once, copied for every test that wants one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from dms_bench.config.budget import MacsBudget
from dms_bench.config.recipe import Recipe
from dms_bench.config.suite import Suite
from dms_bench.config.task import PERCENT, TaskSpec, Unit
from dms_bench.config.trial import Trial
from dms_bench.methods.controls.spec import Random, Uniform, WholeSupernet
from dms_bench.methods.gradient.spec import Dms, Get

METHODS = {"dms": Dms, "get": Get, "random": Random, "uniform": Uniform, "supernet": WholeSupernet}


class PaperTask(TaskSpec):
    """A task on paper: it can be described, not run."""

    implementation: ClassVar[str] = "nowhere:Nothing"
    recipe_class: ClassVar[type[Recipe]] = Recipe
    metric: ClassVar[str] = "top1"
    units: ClassVar[Mapping[str, Unit]] = {"top1": PERCENT}

    kind: Literal["paper"] = "paper"
    difficulty: float = 0.5


def _make_trial(method: str = "dms", seed: int = 0, target: str = "30%", **fields: Any) -> Trial:
    options = fields.pop("options", {})
    return Trial.model_validate(
        {
            "experiment": "cnn",
            "task": PaperTask(),
            "supernet": {"model": "resnet18", "args": {"channels": [16, 32]}},
            "budget": MacsBudget(target=target),
            "method": METHODS[method](**options),
            "search": {"epochs": 2},
            "retrain": {"epochs": 3},
            "seed": seed,
            **fields,
        }
    )


@pytest.fixture(scope="session")
def make_trial() -> Callable[..., Trial]:
    """Return a function that makes a trial from a method's kind, a seed, a target and other fields."""
    return _make_trial


@pytest.fixture(scope="session")
def make_suite() -> Callable[[str], Suite]:
    """Return a function that makes a suite of a name; its experiments do not matter to the tracking."""
    return lambda name="paper": Suite.model_construct(name=name, description="Made for a test.", experiments=[])


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    """URI of an empty MLflow store of the test's own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"
