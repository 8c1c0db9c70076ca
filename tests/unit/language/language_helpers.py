"""What the tests of language models share."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench.scaling import SearchSpace, find_space
from dms_bench_tasks.language.model import LogitsOnly
from dms_bench_tasks.language.spec import LanguageRecipe, LanguageTask
from dms_bench_tasks.language.task import Language

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 48,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
TINY = SupernetSpec(model="llama", args=SIZES)
#: Kinds that must work: type of transformers, and what differs from SIZES.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, grouped queries": ("llama", {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 8}),
    "llama, as many heads as their size": ("llama", {"num_attention_heads": 4, "head_dim": 4}),
    "qwen2, tied": ("qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"num_key_value_heads": 2, "head_dim": 8}),
    "mistral": ("mistral", {"num_key_value_heads": 2}),
    "phi": ("phi", {}),
    "phi3": ("phi3", {"num_key_value_heads": 2}),
}


def task(seed: int = 0, **options: Any) -> Language:
    data = {"name": "pystdlib", "train": 40_000, "val": 4000, "test": 4000}
    return Language(LanguageTask(**({"data": data, "context": 32, "windows": (32,), "generate": 0} | options)), seed)


def recipe(**options: Any) -> LanguageRecipe:
    return LanguageRecipe(**({"epochs": 2, "batch_size": 8, "steps": 4, "lr": 3e-3} | options))


def network(kind: str = "llama", attention: str = "sdpa") -> nn.Module:
    name, args = KINDS[kind]
    spec = SupernetSpec(model=name, args=SIZES | args | {"attn_implementation": attention})
    return task().build(spec).eval()


def space(model: nn.Module, **options: Any) -> SearchSpace:
    return find_space(model, task().example_input(), **options)


def random_mask(own: SearchSpace, seed: int = 0, share: float = 0.6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(own.units.total)
    for start, size, low in zip(own.units.starts, own.units.sizes, own.units.minimum, strict=True):
        keeps = max(low, 1, round(share * size))
        mask[start + torch.randperm(size, generator=generator)[:keeps]] = 1
    return mask


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network weights under which its predictions depend on everything that it has."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter.size(1) ** -0.5, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
    assert isinstance(model, LogitsOnly)
    return model
