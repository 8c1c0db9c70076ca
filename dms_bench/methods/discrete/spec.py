"""Specifications of the methods that choose among a few sizes of every unit, without training.

They judge the weights that they are given: trained ones under DMSp and DMSp-, random ones under DMSnp, which say
little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from dms_bench.config.method import MethodSpec
from dms_bench.config.units import WholeCount

if TYPE_CHECKING:
    from dms_bench.scaling import SearchSpace
    from dms_bench.tasks import Task


class Mip(MethodSpec):
    """Levels of all widths and a choice of blocks by an integer program (HALP, MDP, Puzzle), from additive scores."""

    implementation: ClassVar[str] = "dms_bench.methods.discrete.mip:MipSearch"

    kind: Literal["mip"] = "mip"
    score: Literal["taylor", "kl"] = "taylor"
    """What a level loses. taylor: |w dL/dw| of what is removed, to first order; kl: measured, the KL divergence of the
    predictions where that unit alone is at that level. The latter is for classification and language."""
    levels: Annotated[int, Field(ge=2, le=1000)] = 8
    """Sizes of every width group that are chosen from, evenly spread, the smallest and the largest among them."""
    batches: Annotated[int, Field(ge=1, le=100_000)] = 8
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


def _check_kl(chosen: str, task: Task, option: str) -> None:
    """Raise UserError where predictions are to be compared, and the task makes none of one softmax."""
    if chosen == "kl":
        from dms_bench.methods.divergence import check_softmax  # reading a suite needs no torch

        check_softmax(task, f"{option} 'kl'")
