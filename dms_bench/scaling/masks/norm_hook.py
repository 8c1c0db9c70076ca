"""What stands for the `forward` of a norm whose statistics run over features."""

from __future__ import annotations

from torch import Tensor, nn

from dms_bench.scaling.masks.norms import (
    masked_group_norm,
    masked_layer_norm,
    masked_response_norm,
    masked_rms_norm,
    masked_simple_norm,
)
from dms_bench.scaling.masks.state import MaskHook, MaskState
from dms_bench.scaling.modules.norm_kinds import UNIT, eps_of


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

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise."""
        norm = self.module
        if not self.state.active:
            unmasked: Tensor = type(norm).forward(norm, x)
            return unmasked
        mask = self.state.vectors[self.index]
        scale: Tensor | None = norm._parameters.get("weight")
        shift: Tensor | None = norm._parameters.get("bias")
        if scale is not None and self.kind.endswith(UNIT):
            scale = scale + 1
        if self.folds:
            scale = mask if scale is None else scale * mask
            shift = None if shift is None else shift * mask
        kind = self.kind.removesuffix(UNIT)
        if isinstance(norm, nn.LayerNorm) or kind == "layer":
            result = masked_layer_norm(x, mask, self.dim, scale, shift, eps_of(norm, x))
        elif isinstance(norm, nn.GroupNorm):
            result = masked_group_norm(x, mask, scale, shift, norm.eps)
        elif kind == "response":
            assert scale is not None
            assert shift is not None
            result = masked_response_norm(x, mask, self.dim, scale, shift, eps_of(norm, x))
        else:
            masked = {"rms": masked_rms_norm, "simple": masked_simple_norm}[kind]
            result = masked(x, mask, self.dim, scale, eps_of(norm, x))
        for name in ("drop", "act"):  # of norms that bring their activation along
            following = getattr(norm, name, None)
            result = following(result) if isinstance(following, nn.Module) else result
        return result
