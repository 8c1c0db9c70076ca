"""The masks that the hooks on a network share, and what all of those hooks are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MaskState:
    """The masks of the last forward pass: one vector [C] per scaled parameter and norm, a number per block.

    They apply while it runs, and while its backward pass computes some of it again (activation
    checkpointing). Copies start without masks.
    """

    def __init__(self) -> None:
        self.vectors: tuple[Tensor, ...] = ()
        self.blocks: Tensor | None = None
        self.running = False

    @property
    def active(self) -> bool:
        """Whether the masks apply to what runs now."""
        return self.running or (self.blocks is not None and _in_backward_pass())

    def forget(self) -> None:
        """Let go of the last masks."""
        self.vectors, self.blocks = (), None

    def __reduce__(self) -> tuple[type[MaskState], tuple[()]]:
        return MaskState, ()


class MaskHook:
    """Base of the hooks that this module puts on a network."""

    def __init__(self, state: MaskState, index: int) -> None:
        self.state, self.index = state, index


def strip_hooks(model: nn.Module) -> None:
    """Take the hooks of `MaskedForward` off a network."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, MaskHook)]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)
                module._forward_hooks_with_kwargs.pop(key, None)
                module._forward_pre_hooks_with_kwargs.pop(key, None)
        if isinstance(module.__dict__.get("forward"), MaskHook):
            del module.__dict__["forward"]


def _in_backward_pass() -> bool:
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
