"""What stands for the `forward` of a norm whose statistics run over features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from dms_bench.scaling.masks.norms import (
    masked_deviation_norm,
    masked_group_norm,
    masked_layer_norm,
    masked_length_norm,
    masked_response_norm,
    masked_rms_norm,
    masked_simple_norm,
)
from dms_bench.scaling.masks.state import MaskHook, MaskState
from dms_bench.scaling.masks.weights import scaled
from dms_bench.scaling.modules.norm_kinds import LENGTHS, UNIT, Weights, eps_in_code, eps_of, weights_of

_MASKED: dict[str, Callable[..., Tensor]] = {
    "rms": masked_rms_norm,
    "simple": masked_simple_norm,
    "deviation": masked_deviation_norm,
    "simple_biased": partial(masked_simple_norm, fewer=0),
    "deviation_biased": partial(masked_deviation_norm, fewer=0),
}


class MaskedNorm(MaskHook):
    """Stands for the `forward` of a norm whose statistics run over features: those of kept ones.

    Args:
        state: gives the masks.
        index: which of its vectors.
        module: the norm.
        dim: the normalised dimension of its input.
        kind: what it computes, where it is one of `recognised`.
        folds: the result is masked as well, for the layers that read it.
    """

    def __init__(self, state: MaskState, index: int, module: nn.Module, dim: int, kind: str, folds: bool) -> None:
        super().__init__(state, index)
        self.module, self.dim, self.kind, self.folds = module, dim, kind, folds
        self.weights = (weights_of(module) if kind else None) or Weights("weight", "bias")
        self.in_code = eps_in_code(module, kind) if kind and kind not in LENGTHS else None

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise."""
        norm = self.module
        if not self.state.active:
            unmasked: Tensor = type(norm).forward(norm, x)
            return unmasked
        mask = self.state.vectors[self.index]
        scale, shift = (self._vector(name) for name in self.weights)
        if self.kind in LENGTHS:
            own = type(norm).forward(norm, x)
            result = masked_length_norm(x, own, mask, self.dim, shift, mean=self.kind == "mean_length")
            return scaled(result, mask, self.dim) if self.folds else result
        if scale is not None and self.kind.endswith(UNIT):
            scale = scale + 1
        if self.folds:
            scale = mask if scale is None else scale * mask
            shift = None if shift is None else shift * mask
        kind = self.kind.removesuffix(UNIT)
        if isinstance(norm, nn.LayerNorm) or kind == "layer":
            result = masked_layer_norm(x, mask, self.dim, scale, shift, self._eps(x))
        elif isinstance(norm, nn.GroupNorm) or kind == "group":
            result = masked_group_norm(x, mask, scale, shift, self._eps(x))
        elif kind == "response":
            assert scale is not None
            assert shift is not None
            result = masked_response_norm(x, mask, self.dim, scale, shift, self._eps(x))
        else:
            result = _MASKED[kind](x, mask, self.dim, scale, self._eps(x), shift)
        for name in ("drop", "act"):  # of norms that bring their activation along
            following = getattr(norm, name, None)
            result = following(result) if isinstance(following, nn.Module) else result
        return result

    def _eps(self, x: Tensor) -> float:
        """Return what the norm adds to its statistic."""
        return eps_of(self.module, x) if self.in_code is None else self.in_code

    def _vector(self, name: str | None) -> Tensor | None:
        """Return a parameter of the norm, if there is one, [C]."""
        parameter = self.module._parameters.get(name) if name else None
        return None if parameter is None else parameter.flatten()
