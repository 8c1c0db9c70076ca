"""How fast a network writes, one token at a time with a cache, and what that takes in memory."""

from __future__ import annotations

import time

import torch
from torch import nn

from dms_bench.scaling.modules.modes import modes_kept
from dms_bench_tasks.language.plain import plain
from dms_bench_tasks.language.spec import LanguageTask

_PROMPT = 32
_REPEATS = 3


@torch.no_grad()
def measure(model: nn.Module, task: LanguageTask, device: torch.device) -> dict[str, float]:
    """Generate from one prompt of 32 tokens, greedily; the best of three runs after one to warm up.

    Returns:
        `generate_ms_per_token`; `weights_mb` and `cache_kb_per_token` (keys and values of one token of one sequence);
        on a GPU also `generate_peak_mb`, the most memory in use meanwhile.
    """
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    results = {"weights_mb": weights / 1e6}
    if not task.generate:
        return results
    lm = plain(model)
    prompt = torch.randint(3, 200, (1, _PROMPT), generator=torch.Generator().manual_seed(0)).to(device)
    options = {
        "max_new_tokens": task.generate, "min_new_tokens": task.generate, "do_sample": False, "use_cache": True,
        "attention_mask": torch.ones_like(prompt), "pad_token_id": 0,
    }  # fmt: skip
    with modes_kept(lm):
        lm.eval()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        times = []
        for _ in range(1 + _REPEATS):
            started = time.perf_counter()
            lm.generate(prompt, **options)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
        cache = lm(prompt, use_cache=True).cache
    results["generate_ms_per_token"] = 1e3 * min(times[1:]) / task.generate
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    results["cache_kb_per_token"] = held * cache.layers[0].keys.element_size() / _PROMPT / 1e3
    if device.type == "cuda":
        results["generate_peak_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
    return results
