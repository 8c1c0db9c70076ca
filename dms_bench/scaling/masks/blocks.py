"""Hooks that take removable blocks out by degrees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.masks.state import MaskHook, MaskState
from dms_bench.scaling.modules.blocks import FEATURES, NOTHING, argument_of, entry_of, features_of, with_features


class BlendBlock(MaskHook):
    """Blends what a residual block returns with what it was given; exact at 0 and at 1.

    Args:
        state: gives the masks.
        index: of the block.
        answers: what the block, removed, answers for each entry of the tuple that it returns, if it returns one.
    """

    def __init__(self, state: MaskState, index: int, answers: Sequence[str]) -> None:
        super().__init__(state, index)
        self.answers = answers

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """After the forward pass."""
        if not self.state.active:
            return None
        if type(output) is not tuple:
            return self._blended(entry_of(args, kwargs), output)
        # Called otherwise than it was traced (for weights of attention, say) a block may return more, or less.
        answers = (*(self.answers or (FEATURES,)), *[NOTHING] * len(output))
        entries = zip(output, answers, strict=False)
        return tuple(self._blended(argument_of(args, kwargs, answer), value) for value, answer in entries)

    def _blended(self, entry: Any, features: Any) -> Any:
        if not isinstance(entry, Tensor) or not isinstance(features, Tensor) or features is entry:
            return features
        assert self.state.blocks is not None
        kind = torch.promote_types(entry.dtype, features.dtype)
        blended = torch.lerp(entry.to(kind), features.to(kind), self.state.blocks[self.index].to(kind))
        return blended.to(features.dtype)


class ScaleBranch(MaskHook):
    """Scales the output of a block that the code around it adds to its input."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        """After the forward pass."""
        features = features_of(output)
        if not self.state.active or features is None:
            return None
        assert self.state.blocks is not None
        return with_features(output, features * self.state.blocks[self.index].to(features.dtype))
