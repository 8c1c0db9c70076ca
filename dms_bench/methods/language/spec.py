"""Specifications of the pruning methods that were made for language models; they prune any network of the space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from dms_bench.config.method import MethodSpec, Use
from dms_bench.errors import UserError

if TYPE_CHECKING:
    from dms_bench.scaling import SearchSpace
    from dms_bench.tasks import Task


class CalibratedSpec(MethodSpec):
    """What all of them share: a few batches of training data, looked at once."""

    batches: Annotated[int, Field(ge=1, le=100_000)] = 8
    """Batches of training data by which the network is judged; the task says how large one is: 64 images in
    classification, 16 in detection, 16 sequences in language."""


class LlmPruner(CalibratedSpec):
    """LLM-Pruner: Taylor importance of coupled weights, one ratio for the blocks between the first and the last."""

    implementation: ClassVar[str] = "dms_bench.methods.language.llm_pruner:LlmPrunerSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights", "data", "gradients")

    kind: Literal["llm_pruner"] = "llm_pruner"
    importance: Literal["param_first", "param_second", "param_mix", "vectorize"] = "param_first"
    """Score of an element, by LLM-Pruner's names, from its weights w, their gradients g and mean squared gradients F.
    param_first: sum |w g|; param_second: sum |w^2 F|; param_mix: sum |w g - w^2 F / 2|; vectorize: |sum w g|."""
    keep_first: Annotated[float, Field(ge=0, lt=1)] = 4 / 32
    """Share of the blocks at the beginning that are left alone, rounded up; of 32 the first 4."""
    keep_last: Annotated[float, Field(ge=0, lt=1)] = 2 / 32
    """Share of the blocks at the end that are left alone, rounded up; of 32 the last 2."""

    def check(self, space: SearchSpace, task: Task) -> None:
        """Refuse a space without a group in an inner block."""
        self.inner_groups(space)

    def inner_groups(self, space: SearchSpace) -> set[str]:
        """Return the names of the groups that lie in numbered blocks between those at the ends.

        Raises:
            UserError: there is none.
        """
        block_of = {group.name: _block_number(group.name) for group in space.groups}
        blocks = sorted({number for number in block_of.values() if number is not None})
        first, last = (math.ceil(share * len(blocks)) for share in (self.keep_first, self.keep_last))
        inner = set(blocks[first : len(blocks) - last])
        if not inner:
            raise UserError(
                f"method 'llm_pruner' leaves the first {first} and the last {last} blocks alone, and of "
                f"{len(blocks)} none is left: lower keep_first and keep_last, or take a deeper network"
            )
        return {name for name, number in block_of.items() if number in inner}


class WandaSp(CalibratedSpec):
    """Wanda, structured: weights times the norm of what they are applied to; one ratio for all layers."""

    implementation: ClassVar[str] = "dms_bench.methods.language.activations:WandaSpSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights", "data")
    needs_widths: ClassVar[bool] = True

    kind: Literal["wanda_sp"] = "wanda_sp"


class Flap(CalibratedSpec):
    """FLAP: weights times the variance of what they are applied to, standardised; one threshold for all layers."""

    implementation: ClassVar[str] = "dms_bench.methods.language.activations:FlapSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights", "data")
    needs_widths: ClassVar[bool] = True

    kind: Literal["flap"] = "flap"


class _BlockDropping(CalibratedSpec):
    """What searches the depth alone."""

    def check(self, space: SearchSpace, task: Task) -> None:
        """Refuse a space with fewer than two removable blocks."""
        if len(list(space.blocks)) < 2:
            raise UserError(
                f"method {self.kind!r} drops blocks, and of this supernet's at most one may go: search its depth, or "
                "take a network with residual blocks"
            )


class ShortGpt(_BlockDropping):
    """ShortGPT: drops the blocks that change their input least."""

    implementation: ClassVar[str] = "dms_bench.methods.language.blocks:ShortGptSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights", "data")

    kind: Literal["shortgpt"] = "shortgpt"


class Sleb(_BlockDropping):
    """SLEB: drops blocks one by one, each time the one whose loss is least."""

    implementation: ClassVar[str] = "dms_bench.methods.language.blocks:SlebSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights", "data")

    kind: Literal["sleb"] = "sleb"


def _block_number(name: str) -> int | None:
    """Return the number of the block that a group lies in, by its path; None where it lies in none."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)
