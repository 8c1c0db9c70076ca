"""Specifications of the pruning methods that were made for language models; they prune any network of the space."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dms_bench.config.method import MethodSpec


class CalibratedSpec(MethodSpec):
    """What all of them share: a few batches of training data, looked at once."""

    batches: Annotated[int, Field(ge=1)] = 8
    """Batches of training data by which the network is judged; the task says how large one is: 64 images in
    classification, 16 in detection, 16 sequences in language."""


class LlmPruner(CalibratedSpec):
    """LLM-Pruner: Taylor importance of coupled weights, one ratio for the blocks between the first and the last."""

    implementation: ClassVar[str] = "dms_bench.methods.language.llm_pruner:LlmPrunerSearch"

    kind: Literal["llm_pruner"] = "llm_pruner"
    importance: Literal["param_first", "param_second", "param_mix", "vectorize"] = "param_first"
    """Score of an element, by LLM-Pruner's names, from its weights w, their gradients g and mean squared gradients F.
    param_first: sum |w g|; param_second: sum |w^2 F|; param_mix: sum |w g - w^2 F / 2|; vectorize: |sum w g|."""
    keep_first: Annotated[float, Field(ge=0, lt=1)] = 4 / 32
    """Share of the blocks at the beginning that are left alone, rounded up; of 32 the first 4."""
    keep_last: Annotated[float, Field(ge=0, lt=1)] = 2 / 32
    """Share of the blocks at the end that are left alone, rounded up; of 32 the last 2."""


class WandaSp(CalibratedSpec):
    """Wanda, structured: weights times the norm of what they are applied to; one ratio for all layers."""

    implementation: ClassVar[str] = "dms_bench.methods.language.activations:WandaSpSearch"

    kind: Literal["wanda_sp"] = "wanda_sp"


class Flap(CalibratedSpec):
    """FLAP: weights times the variance of what they are applied to, standardised; one threshold for all layers."""

    implementation: ClassVar[str] = "dms_bench.methods.language.activations:FlapSearch"

    kind: Literal["flap"] = "flap"


class ShortGpt(CalibratedSpec):
    """ShortGPT: drops the blocks that change their input least."""

    implementation: ClassVar[str] = "dms_bench.methods.language.blocks:ShortGptSearch"

    kind: Literal["shortgpt"] = "shortgpt"


class Sleb(CalibratedSpec):
    """SLEB: drops blocks one by one, each time the one whose loss is least."""

    implementation: ClassVar[str] = "dms_bench.methods.language.blocks:SlebSearch"

    kind: Literal["sleb"] = "sleb"
