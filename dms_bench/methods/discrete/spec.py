"""Specifications of the methods that choose among a few sizes of every unit, without training.

They judge the weights that they are given: trained ones under DMSp and DMSp-, random ones under DMSnp, which say
little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dms_bench.config.method import MethodSpec, Use
from dms_bench.config.units import WholeCount
from dms_bench.errors import UserError

if TYPE_CHECKING:
    from dms_bench.scaling import SearchSpace
    from dms_bench.tasks import Task


_Fitness = Literal["loss", "kl"]
_Batches = Annotated[int, Field(ge=1, le=100_000)]


class Mip(MethodSpec):
    """Levels of all widths and a choice of blocks by an integer program (HALP, MDP, Puzzle), from additive scores."""

    implementation: ClassVar[str] = "dms_bench.methods.discrete.mip:MipSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights", "data", "gradients")

    kind: Literal["mip"] = "mip"
    score: Literal["taylor", "kl"] = "taylor"
    """What a level loses. taylor: |w dL/dw| of what is removed, to first order; kl: measured, the KL divergence of the
    predictions where that unit alone is at that level. The latter is for classification and language."""
    levels: Annotated[int, Field(ge=2, le=1000)] = 8
    """Sizes of every width group that are chosen from, evenly spread, the smallest and the largest among them."""
    batches: _Batches = 8
    """Batches of training data by which the network is judged."""
    images: WholeCount = 500
    """Training samples from which the batch-norm statistics of a network are estimated before its predictions are
    compared; for the score `kl` only."""

    def label(self) -> str:
        """Return the method with its score: two scores are two methods, not two settings of one."""
        return f"{self.kind} by {self.score}"

    def check(self, space: SearchSpace, task: Task) -> None:
        """Refuse a divergence of what is no prediction."""
        _check_kl(self.score, task, "method.score")

    def canonical(self) -> Self:
        """Return the method without the option that its score does not use."""
        fields = type(self).model_fields
        unused: dict[str, Any] = {} if self.score == "kl" else {"images": fields["images"].get_default()}
        return self.model_copy(update=unused)


class Levels(MethodSpec):
    """Evolution at the budget: one unit goes down by a level, another one up, selection in rounds (EvoPress)."""

    implementation: ClassVar[str] = "dms_bench.methods.discrete.levels:LevelsSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights", "data", "gradients")

    kind: Literal["levels"] = "levels"
    fitness: _Fitness = "loss"
    """What children are judged by, less being better. loss: the task's loss; kl: the KL divergence from the whole
    network's predictions, for classification and language."""
    levels: Annotated[int, Field(ge=2, le=1000)] = 16
    """Sizes from the fewest to the most elements of a width group; a mutation moves by one. Of stages, by a block."""
    generations: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Times that children are made of the best architecture so far."""
    offspring: Annotated[int, Field(ge=1, le=100_000)] = 8
    """Children of a generation."""
    survivors: tuple[Annotated[int, Field(ge=1)], ...] = (2,)
    """How many children each round of selection but the last leaves; the last one leaves one, or the parent."""
    batches: Annotated[tuple[_Batches, ...], Field(min_length=1)] = (1, 4)
    """Batches of training data that each round of selection looks at; those of the last one judge the parent, too."""
    images: WholeCount = 500
    """Training samples from which a child's batch-norm statistics are estimated before it is judged."""

    @model_validator(mode="after")
    def _rounds_narrow(self) -> Self:
        if len(self.batches) != len(self.survivors) + 1:
            raise ValueError(
                f"batches {list(self.batches)} are {len(self.batches)} rounds of selection, of which all but the last "
                f"need a number of survivors: {len(self.batches) - 1} in place of {list(self.survivors)}"
            )
        if self.survivors and self.survivors[0] > self.offspring:
            raise ValueError(
                f"survivors {list(self.survivors)}: the first round has {self.offspring} children (offspring) and "
                "cannot leave more"
            )
        if list(self.survivors) != sorted(self.survivors, reverse=True) or list(self.batches) != sorted(self.batches):
            raise ValueError(
                "each round of selection looks at fewer children (survivors) on more batches than the last"
            )
        return self

    def label(self) -> str:
        """Return the method with its fitness: two of those are two methods, not two settings of one."""
        return f"{self.kind} by {self.fitness}"

    def check(self, space: SearchSpace, task: Task) -> None:
        """Refuse a divergence of what is no prediction."""
        _check_kl(self.fitness, task, "method.fitness")


class JointSteps(MethodSpec):
    """Greedy steps to the budget, each in the widths or in the depth, whichever loses less (MoP)."""

    implementation: ClassVar[str] = "dms_bench.methods.discrete.joint_steps:JointStepsSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights", "data", "gradients")

    kind: Literal["joint_steps"] = "joint_steps"
    fitness: _Fitness = "loss"
    """What networks are judged by, less being better. loss: the task's loss; kl: the KL divergence from the whole
    network's predictions, for classification and language."""
    steps: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Steps of equal cost from the whole network to the budget. Each removes one block at most."""
    batches: _Batches = 4
    """Batches of training data by which networks are judged."""
    images: WholeCount = 500
    """Training samples from which a network's batch-norm statistics are estimated before it is judged."""

    def label(self) -> str:
        """Return the method with its fitness: two of those are two methods, not two settings of one."""
        return f"{self.kind} by {self.fitness}"

    def check(self, space: SearchSpace, task: Task) -> None:
        """Refuse a space of widths or blocks alone, and a divergence of what is no prediction."""
        _check_kl(self.fitness, task, "method.fitness")
        if not space.groups or not space.blocks:
            raise UserError(
                f"method {self.kind!r} weighs widths against blocks, and this space has no "
                f"{'blocks' if space.groups else 'widths'}: search both, or take a network with residual blocks"
            )


def _check_kl(chosen: str, task: Task, option: str) -> None:
    """Raise UserError where predictions are to be compared, and the task makes none of one softmax."""
    if chosen == "kl":
        from dms_bench.methods.divergence import check_softmax  # reading a suite needs no torch

        check_softmax(task, f"{option} 'kl'")
