"""A task that trains in milliseconds and fails on demand: a plug-in found through its entry points."""

from typing import ClassVar, Literal

from dms_bench.config.method import MethodSpec
from dms_bench.config.recipe import Recipe
from dms_bench.config.task import TaskSpec


class ToyRecipe(Recipe):
    lr: float = 0.1
    steps: int = 4
    pause: float = 0.0
    """Seconds that a step takes."""
    fails_in: int = 0
    """Epoch in which the loss becomes infinite; 0 for never."""
    dies_in: int = 0
    """Epoch at whose end the process is killed, every time; 0 for never."""
    dies_by: Literal["kill", "abort", "exit"] = "kill"
    """How: by SIGKILL, as a C library ends a process whose heap is corrupt, or by leaving."""


class ToyTask(TaskSpec):
    implementation: ClassVar[str] = "toy_task:Toy"
    recipe_class: ClassVar[type[Recipe]] = ToyRecipe
    metric: ClassVar[str] = "accuracy"

    kind: Literal["toy"] = "toy"
    width: int = 16


class Half(MethodSpec):
    """Trains the supernet, then keeps the first half of every group."""

    implementation: ClassVar[str] = "toy_task:KeepHalf"
    trains_in_search: ClassVar[bool] = True

    kind: Literal["half"] = "half"
