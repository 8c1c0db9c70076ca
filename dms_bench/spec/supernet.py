"""The network a search starts from, and what of it may be searched."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dms_bench.spec.base import Spec


class SpaceSpec(Spec):
    """Which dimensions of the supernet are searched."""

    width: bool = True
    depth: bool = True
    #: Shell-style patterns of group and stage names that are left as they are.
    exclude: tuple[str, ...] = ()


class SupernetSpec(Spec):
    """A model by name, built by the task (timm for classification)."""

    model: str
    args: dict[str, Any] = Field(default_factory=dict)
    #: Load the library's pretrained weights (needs a network or a filled cache).
    pretrained: bool = False
    #: Path of a safetensors or weights-only checkpoint to start from.
    checkpoint: str | None = None
    space: SpaceSpec = SpaceSpec()
