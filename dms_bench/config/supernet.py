"""The network a search starts from, and what of it may be searched."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from dms_bench.config.base import Spec
from dms_bench.config.problems import InvalidSpecError, Problem, problems_of


class CoarseSpec(Spec):
    """How coarsely some groups or stages are searched: in runs of `step`, between `min` and `max`."""

    #: Shell-style pattern of names of width groups, as `dms-bench space` shows them; or
    groups: str | None = None
    #: of names of stages.
    stages: str | None = None
    #: Channels or heads that share importance and mask.
    step: Annotated[int, Field(ge=1)] = 1
    #: Fewest channels, heads or removable blocks that stay.
    min: Annotated[int, Field(ge=0)] = 0
    #: Most that stay; all unless given.
    max: Annotated[int, Field(ge=1)] | None = None
    #: All of these groups keep equally many, each its own most important ones.
    equal: Annotated[bool, Field(exclude_if=lambda equal: not equal)] = False  # in no hash of a trial without it

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if (self.groups is None) == (self.stages is None):
            raise ValueError("needs either 'groups' or 'stages', a pattern of their names")
        if self.stages is not None and self.step > 1:
            raise ValueError(f"step {self.step} is for groups: the blocks of stages are searched one by one")
        if self.stages is not None and self.equal:
            raise ValueError("equal is for groups: stages keep blocks, not widths")
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class SpaceSpec(Spec):
    """Which dimensions of the supernet are searched."""

    width: bool = True
    depth: bool = True
    #: Shell-style patterns of group and stage names that are left as they are.
    exclude: tuple[str, ...] = ()
    #: Coarse groups and stages; of several entries for one, the first counts.
    coarse: tuple[CoarseSpec, ...] = ()
    #: Cuts keep multiples of this number of channels, where a group has as many; for all methods alike.
    round_to: Annotated[int, Field(ge=1)] = 1
    #: Of attention: the number of heads, the sizes that the heads of a layer have in common (one of queries and keys,
    #: one of values), or both: three ratios for each layer.
    attention: Literal["heads", "dims", "both"] = "heads"


class SupernetSpec(Spec):
    """A model by name, built by the task (timm for classification)."""

    model: str
    args: dict[str, Any] = Field(default_factory=dict)
    #: Channels, and blocks of every stage, as multiples of the model's own, in families that have such multipliers.
    width: Annotated[float, Field(gt=0)] = 1.0
    depth: Annotated[float, Field(gt=0)] = 1.0
    #: Load the library's pretrained weights (needs a network or a filled cache).
    pretrained: bool = False
    #: Path of a safetensors or weights-only checkpoint to start from.
    checkpoint: str | None = None
    #: Subnets share weights: `pretrain` trains a random architecture of the space on every step, made of the leading
    #: elements and blocks; random search and evolution cut out the same ones.
    weight_sharing: bool = False
    space: SpaceSpec = SpaceSpec()

    @model_validator(mode="after")
    def _no_weights_of_another_size(self) -> Self:
        if self.multiplied and self.pretrained:
            raise ValueError(f"there are no pretrained weights at width {self.width:g} and depth {self.depth:g}")
        return self

    @property
    def multiplied(self) -> bool:
        """Whether the network is wider or deeper than the model of that name."""
        return (self.width, self.depth) != (1, 1)

    def label(self) -> str:
        """Return the supernet as the leaderboard prints it, for example `mobilenetv2_100 x1.5 wide x2 deep`."""
        factors = ((self.width, "wide"), (self.depth, "deep"))
        return " ".join([self.model, *(f"x{factor:g} {how}" for factor, how in factors if factor != 1)])


def parse_supernet(content: dict[str, Any]) -> SupernetSpec:
    """Read a supernet that stands by itself, outside of a suite.

    Raises:
        InvalidSpecError: with a line for each mistake.
    """
    try:
        return SupernetSpec.model_validate(content)
    except ValidationError as error:
        found = problems_of(error, content)
        raise InvalidSpecError([Problem(("supernet", *path), text) for path, text in found]) from None
