"""The network a search starts from, and what of it may be searched."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from dms_bench.config.base import Spec, Written
from dms_bench.config.own_network import NetworkName, digest_of, is_own
from dms_bench.config.problems import InvalidSpecError, Problem, problems_of


class CoarseSpec(Spec):
    """How coarsely some groups or stages are searched: in runs of `step`, between `min` and `max`."""

    groups: str | None = None
    """Shell-style pattern of the names of width groups, as `dms-bench space` shows them; give this or `stages`."""
    stages: str | None = None
    """Shell-style pattern of the names of stages; give this or `groups`."""
    step: Annotated[int, Field(ge=1)] = 1
    """Channels or heads that stay or go together, as one run; it must divide the size of the group. For groups only."""
    min: Annotated[int, Field(ge=0)] = 0
    """Fewest channels or heads, or removable blocks of a stage, that stay."""
    max: Annotated[int, Field(ge=1)] | None = None
    """Most channels, heads or removable blocks that stay; all of them unless given."""
    equal: Annotated[bool, Field(exclude_if=lambda equal: not equal)] = False  # in no hash of a trial without it
    """All of these groups keep equally many channels or heads, each its own most important ones. For groups only."""

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
    """Search the widths: channels, features and attention heads."""
    depth: bool = True
    """Search the depth: which residual blocks stay."""
    exclude: tuple[str, ...] = ()
    """Shell-style patterns of names of groups and stages, as `dms-bench space` shows them, that are left as they
    are."""
    coarse: tuple[CoarseSpec, ...] = ()
    """Groups and stages that are searched coarsely or within bounds; where several entries fit one, the first
    counts."""
    round_to: Annotated[int, Field(ge=1)] = 1
    """Cuts keep multiples of this number of channels in groups that have as many, for all methods alike; heads are
    whole anyway. 1: any number."""
    attention: Literal["heads", "dims", "both"] = "heads"
    """What is searched of attention: the number of heads, the sizes that the heads of a layer have in common (one of
    queries and keys, one of values: dims), or both."""


class SupernetSpec(Spec):
    """A model by name, built by the task."""

    model: NetworkName
    """Name of the network. Classification: a model of timm, `torchvision:NAME`, a folder of transformers, or
    `package.module:function` for a network of your own. Detection: a model YAML of Ultralytics such as `yolov8n.yaml`.
    Language: a type of transformers, a folder or a name on the hub."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments for building it: of the model in timm or torchvision, of your own function, scaling fields of
    Ultralytics' YAML, fields of transformers' configuration."""
    width: Annotated[float, Field(gt=0)] = 1.0
    """Channels as a multiple of the model's own, in the families of timm that have such a multiplier."""
    depth: Annotated[float, Field(gt=0)] = 1.0
    """Blocks of every stage as a multiple of the model's own, in the families of timm that have such a multiplier."""
    pretrained: bool = False
    """Start from the library's own weights (timm, transformers; needs a network or a filled cache)."""
    checkpoint: str | None = None
    """Path of a safetensors file with weights to start from; image classification also reads weights-only checkpoints
    of PyTorch, object detection these and the .pt files that Ultralytics trains."""
    # In no hash of a trial without it.
    fresh_head: Annotated[bool, Field(exclude_if=lambda fresh: not fresh)] = False
    """Draw what tells classes apart anew (a classifier, or that part of a detector's head) instead of taking the
    checkpoint's, which knows other classes; where something trains it before networks are compared."""
    weight_sharing: bool = False
    """Let subnets share weights: `pretrain` trains a random architecture of the space on every step, made of the
    leading elements and blocks, and random search and evolution cut out the same ones."""
    space: SpaceSpec = SpaceSpec()
    """Which dimensions are searched, and how finely."""
    # In no hash of a trial without it.
    code: Annotated[SkipJsonSchema[str | None], Field(exclude_if=lambda code: code is None)] = None
    """Digest of the code of a network of your own. It is filled in, so that another code makes another trial."""

    @field_validator("code", mode="before")
    @classmethod
    def _code_of_ones_own(cls, code: Any, info: ValidationInfo) -> Any:
        if code is not None and isinstance(info.context, Written):
            raise ValueError("is filled in, with a digest of the code of a network of your own: leave it out")
        model = info.data.get("model", "")
        return digest_of(model) if code is None and is_own(model) else code

    @model_validator(mode="after")
    def _no_weights_of_another_size(self) -> Self:
        if self.multiplied and self.pretrained:
            raise ValueError(f"there are no pretrained weights at width {self.width:g} and depth {self.depth:g}")
        return self

    @model_validator(mode="after")
    def _a_fresh_head_is_for_a_checkpoint(self) -> Self:
        if self.fresh_head and self.checkpoint is None:
            raise ValueError("fresh_head is for a checkpoint, whose classifier is not taken: give 'checkpoint'")
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
        problems = problems_of(error, content)
        raise InvalidSpecError([Problem(("supernet", *path), text) for path, text in problems]) from None
