"""What a suite may say about waves. Reading a suite must stay fast, so no torch here."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dms_bench.config.recipe import Recipe
from dms_bench.config.task import TaskSpec
from dms_bench_tasks.common.recipe import SteppedRecipe


class WavesRecipe(SteppedRecipe):
    """How a network is trained: SGD at a constant rate."""

    lr: Annotated[float, Field(gt=0)] = 0.05
    """Learning rate of SGD."""


class WavesTask(TaskSpec):
    """Which of four frequencies a noisy wave has."""

    implementation: ClassVar[str] = "dms_bench_waves.task:Waves"
    recipe_class: ClassVar[type[Recipe]] = WavesRecipe
    metric: ClassVar[str] = "accuracy"

    kind: Literal["waves"] = "waves"
    samples: Annotated[int, Field(ge=1)] = 2000
    """Waves to train on."""
    noise: Annotated[float, Field(ge=0)] = 1.5
    """Standard deviation of the noise; the waves have an amplitude of 1."""
