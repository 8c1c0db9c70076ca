"""torch's own attention in the open: the same numbers, from operators that masks, labels and cuts can reach.

`nn.MultiheadAttention` takes its input's size for that of all heads together, and `torch.backends.mha` lets whole
layers around it (`nn.TransformerEncoderLayer`) run as one fused operator in eval mode, which knows nothing of hooks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Modules that may run fused.
FUSED = (nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer)


def may_fuse(model: nn.Module) -> bool:
    """Whether a network has modules that torch may run as one operator."""
    return any(isinstance(module, FUSED) for module in model.modules())


@contextmanager
def unfused() -> Iterator[None]:
    """Inside it torch runs its attention layers module by module; its setting is put back."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class OpenAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` whose heads, and whose features inside of them, may be fewer than its input has.

    Sizes are those of its weights; of its integers it reads the number of heads alone.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; arguments and results are those of `nn.MultiheadAttention`."""
        batched, same = query.dim() == 3, query is key and key is value
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal is a hint about attn_mask, which is needed beside it")
        if not batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        q, k, v = self._projected(query, key, value, same)
        bias = self._bias(q, k, attn_mask, key_padding_mask)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = (q * q.size(-1) ** -0.5) @ k.transpose(-2, -1)
            weights = (scores if bias is None else scores + bias).softmax(-1)
            weights = functional.dropout(weights, dropout)
            attended = weights @ v
        else:
            attended = functional.scaled_dot_product_attention(q, k, v, bias, dropout)
        joined = attended.transpose(1, 2).flatten(2)
        result = functional.linear(joined, self.out_proj.weight, self.out_proj.bias)
        if weights is not None:
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        if not batched:
            return result.squeeze(0), weights
        return result if self.batch_first else result.transpose(0, 1), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor, same: bool) -> list[Tensor]:
        """Return queries, keys and values, of one input where they are the same, [batch, heads, tokens, size] each."""
        rows = self._rows()
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.split_with_sizes(rows)
        joint = self.in_proj_weight
        if same and joint is not None:
            projected = functional.linear(query, joint, self.in_proj_bias).split_with_sizes(rows, -1)
        else:
            weights = separate_weights(self) if joint is None else joint.split_with_sizes(rows)
            inputs = (query, key, value)
            projected = tuple(functional.linear(*operands) for operands in zip(inputs, weights, biases, strict=True))
        return [tensor.reshape(*tensor.shape[:2], self.num_heads, -1).transpose(1, 2) for tensor in projected]

    def _rows(self) -> list[int]:
        """Return how many features queries, keys and values have."""
        if self.in_proj_weight is None:
            return [len(weight) for weight in separate_weights(self)]
        inner = self.out_proj.weight.size(1)
        return [(len(self.in_proj_weight) - inner) // 2] * 2 + [inner]

    def _bias(self, q: Tensor, k: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor | None:
        """Return what is added to the scores: both masks, [batch or 1, heads or 1, tokens, tokens], or None."""
        if mask is not None:
            mask = _added(mask, q)
            if mask.dim() == 3:  # one for each head, of those that are left
                mask = mask.reshape(len(q), self.num_heads, *mask.shape[1:])
        if padding is not None:
            padding = _added(padding, q).reshape(-1, 1, 1, k.size(2))
            mask = padding if mask is None else mask + padding
        return mask


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask as numbers that are added to scores."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))


def openable(model: nn.Module) -> dict[str, nn.MultiheadAttention]:
    """Return a network's attention modules, by path, that have the form which `OpenAttention` computes."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
        and type(module) in (nn.MultiheadAttention, OpenAttention)
        and module.bias_k is None
        and not module.add_zero_attn
    }


def fits_torch(module: nn.MultiheadAttention) -> bool:
    """Whether the sizes of a module, cut or not, are those that torch's own code takes for granted."""
    inner = module.out_proj.weight.size(1)
    if module.in_proj_weight is None:
        queries, *others = separate_weights(module)
        return tuple(queries.shape) == (inner, inner) and all(len(weight) == inner for weight in others)
    return tuple(module.in_proj_weight.shape) == (3 * inner, inner)


def separate_weights(module: nn.MultiheadAttention) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of queries, keys and values of a module whose keys and values have sizes of their own."""
    weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    assert all(weight is not None for weight in weights)
    return weights


def open_attention(model: nn.Module) -> list[nn.MultiheadAttention]:
    """Let a network's attention run in the open, in place; return the modules that did not before."""
    closed = [module for module in openable(model).values() if not isinstance(module, OpenAttention)]
    for module in closed:
        module.__class__ = OpenAttention
        # Layers around it ask for this before they run fused, with weights of the usual sizes.
        module._qkv_same_embed_dim = False  # type: ignore[assignment]
    return closed


@contextmanager
def in_the_open(model: nn.Module) -> Iterator[None]:
    """Let a network's attention run in the open for a while."""
    closed = open_attention(model)
    try:
        yield
    finally:
        for module in closed:
            module.__class__ = nn.MultiheadAttention
            module._qkv_same_embed_dim = module.in_proj_weight is not None
