"""What stands in the place of removed blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.modules.blocks import FEATURES, OBJECT, argument_of, entry_of


class Absent:
    """Has every attribute, of no value, until it is given one."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class StandIn(nn.Module, ABC):
    """Stands in the place of a removed block.

    Args:
        answers: where the block returns a tuple: what stands for each of its entries.
    """

    def __init__(self, answers: Sequence[str] = ()) -> None:
        super().__init__()
        self._answers = tuple(answers)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what stands for the block's output; arguments that are not needed (masks, sizes) are ignored."""
        if not self._answers:
            return self.features(args, kwargs)
        return tuple(self._entry(args, kwargs, answer) for answer in self._answers)

    @abstractmethod
    def features(self, args: Any, kwargs: Any) -> Tensor | None:
        """Return what stands for the features that the block returned."""

    def _entry(self, args: Any, kwargs: Any, answer: str) -> Any:
        if answer == OBJECT:
            return Absent()
        return self.features(args, kwargs) if answer == FEATURES else argument_of(args, kwargs, answer)


class Skip(StandIn):
    """A residual block that is gone hands on its first argument."""

    def features(self, args: Any, kwargs: Any) -> Tensor | None:
        """Return the first argument."""
        return entry_of(args, kwargs)


class Zero(StandIn):
    """A branch that is gone, which the code around it adds to its input, is zero."""

    def features(self, args: Any, kwargs: Any) -> Tensor | None:
        """Return zeros like the first argument."""
        x = entry_of(args, kwargs)
        return None if x is None else torch.zeros_like(x)


def stand_in(block: nn.Module, answers: Sequence[str], *, added: bool) -> StandIn:
    """Return what stands in the place of a block, with its plain attributes: some networks run their layers by them.

    Args:
        block: what is removed.
        answers: for each entry of the tuple that it returns, if it returns one.
        added: it is a branch, which the code around it adds to its input.
    """
    gone = Zero(answers) if added else Skip(answers)
    plain = {
        name: value
        for name, value in vars(block).items()
        if isinstance(value, int | str | list) and name not in vars(gone)
    }
    vars(gone).update(plain)
    if isinstance(block, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        # torch asks the first of its layers how samples lie.
        vars(gone)["self_attn"] = SimpleNamespace(batch_first=block.self_attn.batch_first)
    return gone
