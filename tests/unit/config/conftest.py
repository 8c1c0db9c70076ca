"""A small task, beside the methods that the package registers, so that these tests need no data."""

from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from dms_bench.config import plugins, schema
from dms_bench.config.base import Spec
from dms_bench.config.method import MethodSpec
from dms_bench.config.recipe import Recipe
from dms_bench.config.task import TaskSpec
from dms_bench.methods.controls.spec import Random
from dms_bench.methods.gradient.spec import Dms


class ToyRecipe(Recipe):
    lr: Annotated[float, Field(gt=0)] = 0.1
    amp: bool = False


class ToyData(Spec):
    name: Literal["dots", "lines"]
    train: int = 100


class Toy(TaskSpec):
    implementation: ClassVar[str] = "collections:OrderedDict"
    recipe_class: ClassVar[type[Recipe]] = ToyRecipe
    metric: ClassVar[str] = "top1"

    kind: Literal["toy"] = "toy"
    data: ToyData


class Whole(MethodSpec):
    implementation: ClassVar[str] = "collections:OrderedDict"
    uses_budget: ClassVar[bool] = False

    kind: Literal["whole"] = "whole"


REGISTERED = {plugins.TASKS: {"toy": Toy}, plugins.METHODS: {"dms": Dms, "random": Random, "whole": Whole}}


@pytest.fixture(autouse=True, scope="module")
def toy_plugins():
    with pytest.MonkeyPatch.context() as patch:
        for module in (plugins, schema):
            patch.setattr(module, "registered", REGISTERED.__getitem__)
        yield


@pytest.fixture
def document() -> dict[str, Any]:
    """A suite of one trial."""
    return {
        "name": "suite",
        "experiments": [
            {
                "name": "toys",
                "task": {"kind": "toy", "data": {"name": "dots"}},
                "supernet": {"model": "net", "args": {"width": [8, 8]}},
                "budget": {"kind": "macs", "target": "30%"},
                "method": "dms",
                "search": {"epochs": 2},
                "retrain": {"epochs": 10},
            }
        ],
    }


@pytest.fixture
def experiment(document) -> dict[str, Any]:
    """The experiment in `document`."""
    return document["experiments"][0]
