"""Specifications of the methods that sample architectures and score them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from dms_bench.config.method import MethodSpec, Use
from dms_bench.config.units import WholeCount
from dms_bench.errors import UserError

if TYPE_CHECKING:
    from dms_bench.scaling import SearchSpace
    from dms_bench.tasks import Task

#: The first two count, the next six need fresh weights and a few batches, the last two a trained supernet.
Score = Literal["params", "macs", "grad_norm", "snip", "synflow", "naswot", "zico", "zen", "shared", "predictor"]
#: What each score uses. Candidates keep the supernet's largest weights; the first eight scores then draw fresh ones.
_USES: dict[str, tuple[Use, ...]] = {
    "params": ("weights",),
    "macs": ("weights",),
    "grad_norm": ("weights", "data", "gradients"),
    "snip": ("weights", "data", "gradients"),
    "zico": ("weights", "data", "gradients"),
    "naswot": ("weights", "data"),
    "synflow": ("weights",),
    "zen": ("weights",),
    "shared": ("weights", "data", "validation"),
    "predictor": ("weights", "data", "validation"),
}
#: Candidates of a rehearsal, and the fewest that a predictor can learn from.
_REHEARSED, _FEWEST_SAMPLES = 2, 10
#: Options that only some scores use.
_USED_BY = {"images": ("shared", "predictor"), "samples": ("predictor",)}


class SamplerSpec(MethodSpec):
    """What both samplers have."""

    implementation: ClassVar[str] = "dms_bench.methods.sampling.search:SamplingSearch"

    score: Score = "zico"
    """What candidates are judged by. params, macs: the count itself; grad_norm, snip, synflow, naswot, zico, zen:
    training-free scores of fresh weights; shared: the task's measure on the validation split with the supernet's
    weights; predictor: a network that predicts `shared`. The last two need DMSp or DMSp-."""
    candidates: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Architectures at the budget that are scored; the best one is the result."""
    images: WholeCount = 2000
    """Training samples that a subnet's batch-norm statistics are estimated from, for the scores `shared` and
    `predictor`."""
    samples: Annotated[int, Field(ge=10)] = 200
    """Architectures whose shared-weight measure the predictor learns from, a fifth of them held out. For the score
    `predictor` only."""

    def label(self) -> str:
        """Return the sampler with its score: two scores are two methods, not two settings of one."""
        return f"{self.kind} by {self.score}"

    @property
    def uses(self) -> tuple[Use, ...]:
        """What the score uses."""
        return _USES[self.score]

    @property
    def judges_weights(self) -> bool:
        """Whether subnets are measured with the supernet's weights."""
        return self.score in ("shared", "predictor")

    def rehearsed(self) -> tuple[Self, dict[str, float]]:
        """Return the sampler with a few candidates; a predictor learns from a few, too."""
        candidates, samples = min(self.candidates, _REHEARSED), min(self.samples, _FEWEST_SAMPLES)
        fewer = self.model_copy(update={"candidates": candidates, "samples": samples})
        return fewer, {"search": self.candidates / candidates, "predictor": self.samples / samples}

    def check(self, space: SearchSpace, task: Task) -> None:
        """Refuse a score that feeds the network with numbers of its own, where inputs are tokens."""
        if self.score in ("synflow", "zen") and not task.example_input(1).is_floating_point():
            raise UserError(
                f"method.score {self.score!r} feeds a network with numbers, and this task's inputs are tokens"
            )

    def canonical(self) -> Self:
        """Return the method without the options that its score does not use."""
        fields = type(self).model_fields
        unused: dict[str, Any] = {
            name: fields[name].get_default() for name, scores in _USED_BY.items() if self.score not in scores
        }
        return self.model_copy(update=unused)


class RandomSearch(SamplerSpec):
    """The best of many random architectures, by its score."""

    kind: Literal["random_search"] = "random_search"


class Evolution(SamplerSpec):
    """Steady-state evolution by a score: children of good parents replace the worst."""

    kind: Literal["evolution"] = "evolution"
    population: Annotated[int, Field(ge=2)] = 16
    """Architectures that live at a time; the first ones are random."""
    mutation: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Chance of every width and depth to be drawn anew in a child."""
