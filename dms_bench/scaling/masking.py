"""How masks act on a network while it runs: by hooks on the modules that need them.

conv(x * m, W) = conv(x, W * m): a mask scales the contracted dimension of a weight. Blocks are
blended with their input, x + m (block(x) - x). Statistics of LayerNorms run over kept features.
The hooks are objects that share one state with their owner, so that a deep copy of the network
(an average of weights, say) has hooks of its own that read the copy's state.

Shape legend:
    E: elements of all searched units
    C: size of a masked dimension
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.space import SearchSpace


class MaskState:
    """The masks of the running forward pass: one vector [C] per site and norm, a number per block."""

    def __init__(self) -> None:
        self.vectors: tuple[Tensor, ...] | None = None
        self.blocks: Tensor | None = None


class MaskHook:
    """Base of the hooks that this module puts on a network."""

    def __init__(self, state: MaskState, place: int) -> None:
        self.state, self.place = state, place


class ScaleWeight(MaskHook):
    """Scales a weight's contracted dimension for the time of a module's forward pass."""

    def __init__(self, state: MaskState, place: int, holder: nn.Module, leaf: str, dim: int) -> None:
        super().__init__(state, place)
        self.holder, self.leaf, self.dim = holder, leaf, dim
        self.original: nn.Parameter | None = None

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Before the forward pass."""
        if self.state.vectors is not None and self.original is None:
            weight = self.holder._parameters[self.leaf]
            assert weight is not None
            shape = [1] * weight.dim()
            shape[self.dim] = -1
            self.original = weight
            self.holder._parameters[self.leaf] = weight * self.state.vectors[self.place].view(shape)  # type: ignore[assignment]


class RestoreWeight(MaskHook):
    """Puts the weight back after the forward pass, also after one that failed."""

    def __init__(self, scale: ScaleWeight) -> None:
        super().__init__(scale.state, scale.place)
        self.scale = scale

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """After the forward pass."""
        if self.scale.original is not None:
            self.scale.holder._parameters[self.scale.leaf] = self.scale.original
            self.scale.original = None


class MaskedNorm(MaskHook):
    """Replaces a LayerNorm's output by one whose statistics run over kept features."""

    def __init__(self, state: MaskState, place: int, dim: int) -> None:
        super().__init__(state, place)
        self.dim = dim

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        """After the forward pass."""
        if self.state.vectors is None:
            return None
        assert isinstance(module, nn.LayerNorm)
        return masked_layer_norm(args[0], self.state.vectors[self.place], self.dim, module)


class BlendBlock(MaskHook):
    """Blends a residual block's output with its input; exact at 0 and at 1."""

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        """After the forward pass."""
        if self.state.blocks is None:
            return None
        return torch.lerp(args[0], output, self.state.blocks[self.place].to(output.dtype))


class MaskedForward:
    """Puts hooks on a network that apply the mask given to `using`, and none outside it."""

    def __init__(self, model: nn.Module, space: SearchSpace) -> None:
        modules = dict(model.named_modules())
        site_elements = [space.slices[site.parameter, site.dim] for site in space.sites]
        elements = [*site_elements, *(norm.elements for norm in space.norms)]
        self.state = MaskState()
        # One gather makes all vectors of a step; they are views of its result.
        self._indices = torch.cat([*elements, torch.empty(0, dtype=torch.long)])
        self._lengths = [len(own) for own in elements]
        self._first_block = space.width_elements
        for place, site in enumerate(space.sites):
            holder, _, leaf = site.parameter.rpartition(".")
            scale = ScaleWeight(self.state, place, modules[holder], leaf, site.dim)
            modules[site.module].register_forward_pre_hook(scale)
            modules[site.module].register_forward_hook(RestoreWeight(scale), always_call=True)
        for place, norm in enumerate(space.norms, start=len(space.sites)):
            modules[norm.module].register_forward_hook(MaskedNorm(self.state, place, norm.dim))
        for place, block in enumerate(block for stage in space.stages for block in stage.blocks):
            modules[block].register_forward_hook(BlendBlock(self.state, place))

    @contextmanager
    def using(self, mask: Tensor) -> Iterator[None]:
        """Apply a mask [E] to forward passes inside."""
        if self._indices.device != mask.device:
            self._indices = self._indices.to(mask.device)
        extended = torch.cat([mask, mask.new_ones(1)])  # index -1: always stays
        self.state.vectors = torch.split(extended[self._indices], self._lengths)
        self.state.blocks = mask[self._first_block :]
        try:
            yield
        finally:
            self.state.vectors = self.state.blocks = None


def strip_hooks(model: nn.Module) -> None:
    """Take the hooks of `MaskedForward` off a network."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, MaskHook)]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)


def masked_layer_norm(x: Tensor, mask: Tensor, dim: int, norm: nn.LayerNorm) -> Tensor:
    """Layer norm whose mean and variance weigh features by their mask.

    Args:
        x: input with C features along `dim`.
        mask: weight of each feature in the statistics, [C].
        dim: the normalised dimension.
        norm: gives epsilon, scale and shift.
    """
    shape = [1] * x.dim()
    shape[dim] = -1
    weights = (mask / mask.sum()).view(shape)
    mean = (x * weights).sum(dim, keepdim=True)
    centred = x - mean
    variance = (centred.square() * weights).sum(dim, keepdim=True)
    result = centred * torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        result = result * norm.weight.view(shape)
    if norm.bias is not None:
        result = result + norm.bias.view(shape)
    return result.to(x.dtype)
