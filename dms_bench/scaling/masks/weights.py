"""Hooks that scale what a layer multiplies: its weight along one dimension, or its input."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dms_bench.scaling.masks.standardised import masked_standardised
from dms_bench.scaling.masks.state import MaskHook, MaskState
from dms_bench.scaling.modules.blocks import entry_of, with_entry


class ScaleWeight(MaskHook):
    """Scales a parameter along one dimension for the time of a module's forward pass.

    Args:
        state: gives the masks.
        index: which of its vectors.
        holder: the module that owns the parameter.
        leaf: the parameter's name there.
        dim: the scaled dimension.
        input_dim: the dimension of the module's input that may be scaled instead, if any.
    """

    def __init__(
        self, state: MaskState, index: int, holder: nn.Module, leaf: str, dim: int, input_dim: int | None = None
    ) -> None:
        super().__init__(state, index)
        self.holder, self.leaf, self.dim, self.input_dim = holder, leaf, dim, input_dim
        self.original: nn.Parameter | None = None

    def __call__(self, module: nn.Module, args: Any) -> tuple[Any, ...] | None:
        """Before the forward pass."""
        if not self.state.active or self.original is not None:
            return None
        weight = self.holder._parameters[self.leaf]
        assert weight is not None
        vector = self.state.vectors[self.index]
        # A frozen weight stays the only copy of itself, and no gradient of its size is computed for the mask's sake.
        if self.input_dim is not None and args and (args[0].numel() < weight.numel() or not weight.requires_grad):
            return (scaled(args[0], vector, self.input_dim), *args[1:])
        self.original = weight
        self.put(self.scaled(weight, vector))
        return None

    def put(self, weight: Tensor) -> None:
        """Let the module see a weight in the place of its parameter."""
        self.holder._parameters[self.leaf] = weight  # type: ignore[assignment]
        if isinstance(self.holder, nn.RNNBase):  # reads its weights from a list of its own
            self.holder._flat_weights[self.holder._flat_weights_names.index(self.leaf)] = weight  # type: ignore[call-overload]

    def scaled(self, weight: Tensor, vector: Tensor) -> Tensor:
        """Return the parameter as the module shall see it."""
        return scaled(weight, vector, self.dim)


class ScaleStandardised(ScaleWeight):
    """Gives a convolution that standardises its weight one whose standardised form is the masked one."""

    def scaled(self, weight: Tensor, vector: Tensor) -> Tensor:
        """Return the parameter as the module shall see it."""
        return masked_standardised(weight, vector, self.dim, float(getattr(self.holder, "eps")))  # noqa: B009


class ScaleInput(MaskHook):
    """Scales the input of a layer that computes its weight from other tensors (weight norm), in its weight's place."""

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Before the forward pass."""
        entry = entry_of(args, kwargs)
        if not self.state.active or entry is None:
            return None
        vector = self.state.vectors[self.index]
        if isinstance(module, nn.Linear):
            return with_entry(args, kwargs, scaled(entry, vector, -1))
        assert isinstance(module, nn.modules.conv._ConvNd)
        repeats = module.in_channels // len(vector)  # groups whose inputs have the same masks
        channels = -1 - len(module.kernel_size)
        return with_entry(args, kwargs, scaled(entry, vector.repeat(repeats), channels))


class RestoreWeight(MaskHook):
    """Puts the parameter back after the forward pass, also after one that failed."""

    def __init__(self, scale: ScaleWeight) -> None:
        super().__init__(scale.state, scale.index)
        self.scale = scale

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """After the forward pass."""
        if self.scale.original is not None:
            self.scale.put(self.scale.original)
            self.scale.original = None


def scaled(tensor: Tensor, vector: Tensor, dim: int) -> Tensor:
    """Multiply a tensor by a vector along one dimension, in the tensor's precision."""
    shape = [1] * tensor.dim()
    shape[dim] = -1
    return tensor * vector.to(tensor.dtype).view(shape)
