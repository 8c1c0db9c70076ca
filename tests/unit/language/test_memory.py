"""Bytes of weights and of the cache, against what transformers keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from dms_bench.config import Resources, Trial
from dms_bench.config.budget import MemoryBudget
from dms_bench.errors import UserError
from dms_bench.scaling import cut
from dms_bench.scaling.memory import cached_model, memory_of
from dms_bench.trial.budget import resolve_budget
from dms_bench.trial.group import alone
from dms_bench.trial.plan import _share
from dms_bench.trial.run import run_trial
from dms_bench.trial.storage import WorkFolder
from dms_bench_tasks.language.cache import cached_rows
from tests.unit.language.language_helpers import KINDS, SIZES, network, random_mask, space

BATCH, CONTEXT = 3, 17


def counted(model: nn.Module) -> tuple[int, int]:
    """Return the bytes of a network's weights in bf16, and of transformers' cache after a forward pass."""
    small = model.to(torch.bfloat16)
    weights = sum(parameter.nbytes for parameter in small.parameters())
    with torch.no_grad():
        cache = small.lm(input_ids=torch.ones(BATCH, CONTEXT, dtype=torch.long), use_cache=True).cache
    written = [layer for layer in cache.layers if getattr(layer, "keys", None) is not None]
    return weights, sum(layer.keys.nbytes + layer.values.nbytes for layer in written)


@pytest.mark.parametrize("kind", KINDS)
def test_the_prediction_is_what_transformers_keeps_to_the_byte(kind: str) -> None:
    model = network(kind)
    own, rows = space(model), cached_rows(model)
    cost = memory_of(own, rows, 2, 2 * BATCH * CONTEXT)
    assert own.cost_of(cost, own.full()) == sum(counted(network(kind)))
    for seed in range(3):
        mask = random_mask(own, seed)
        small = cut(model, own, own.architecture(mask))
        assert own.cost_of(cost, mask) == sum(counted(small))


def test_sizes_of_heads_count_as_well() -> None:
    model = network()
    own = space(model, attention="both", depth=False)
    cost = memory_of(own, cached_rows(model), 2, 2 * BATCH * CONTEXT)
    assert any(group.name.endswith("v_dims") for group in own.groups)
    mask = random_mask(own)
    assert own.cost_of(cost, mask) == sum(counted(cut(model, own, own.architecture(mask))))


def test_the_gradient_is_that_of_finite_differences() -> None:
    model = network()
    own = space(model)
    cost = memory_of(own, cached_rows(model), 0.5, 1000)
    kept = torch.tensor([0.7 * group.size for group in own.groups], dtype=torch.double, requires_grad=True)
    blocks = torch.full((len(own.blocks),), 0.8, dtype=torch.double, requires_grad=True)
    gradients = torch.autograd.grad(cost(kept, blocks), (kept, blocks))
    for variable, gradient in zip((kept, blocks), gradients, strict=True):
        for index in range(len(variable)):
            step = torch.zeros_like(variable)
            step[index] = 1e-3
            moved = [variable.detach() + sign * step for sign in (1, -1)]
            ends = [cost(each, blocks) if variable is kept else cost(kept, each) for each in moved]
            torch.testing.assert_close(gradient[index], (ends[0] - ends[1]).detach() / 2e-3, rtol=1e-6, atol=1e-6)
    assert bool((gradients[1] > 0).all())


def test_what_is_not_searched_is_cached_all_the_same() -> None:
    model = network()
    own = space(model, exclude=("*heads*",), depth=False)
    numbers = 3 * 2 * SIZES["hidden_size"]  # three layers of keys and values
    assert own.cost_of(cached_model(own, cached_rows(model)), random_mask(own)) == numbers


def test_a_network_whose_cache_cannot_be_told_is_refused() -> None:
    odd = network()
    odd.lm.model.layers[0].self_attn.k_proj_ = odd.lm.model.layers[0].self_attn.k_proj
    odd.lm.model.layers[0].self_attn.other = nn.ModuleDict({"k_proj": nn.Linear(4, 4)})
    with pytest.raises(UserError, match=r"budget 'memory': 'llama' keeps something else") as refusal:
        cached_rows(odd)
    assert "bound its macs, params or latency" in str(refusal.value)


def trial(budget: dict[str, Any], **fields: Any) -> Trial:
    data = {"name": "pystdlib", "train": 40_000, "val": 4000, "test": 4000}
    recipe = {"epochs": 1, "batch_size": 8, "steps": 2, "lr": 1e-3, "warmup_steps": 0}
    return Trial.model_validate(
        {
            "experiment": "memory",
            "task": {"kind": "language", "data": data, "context": 32, "windows": (32,), "generate": 0},
            "supernet": {"model": "llama", "args": SIZES},
            "budget": budget,
            "method": "random",
            "retrain": recipe,
            **fields,
        }
    )


def test_a_trial_meets_its_budget_of_memory(tmp_path: Path) -> None:
    memory = {"kind": "memory", "target": "60%", "context": 16, "batch": 2}  # of large ones a head is much
    whole = trial({"kind": "all", "of": [memory, {"kind": "macs", "target": "100%"}]})
    folder = WorkFolder(tmp_path / "trial")
    result = run_trial(whole, folder, alone(Resources()))
    assert result is not None
    assert not result.budget_missed
    weights, cache = 2 * sum(p.numel() for p in network().parameters()), 2 * 3 * 2 * 48 * 16 * 2
    assert result.targets["memory"] == pytest.approx(0.6 * (weights + cache))
    assert result.memory_bytes == pytest.approx(result.targets["memory"], rel=0.01)


def test_budgets_of_memory_are_bytes_or_shares() -> None:
    sizes = {"60%": 0.6, 0.6: 0.6, "8GB": 8e9, "512 MiB": 2**29, 2e9: 2e9, "300kB": 3e5}
    for written, bytes_ in sizes.items():
        budget = MemoryBudget(target=written, context=2048)
        assert budget.target == bytes_
        assert MemoryBudget.model_validate(budget.model_dump(mode="json")) == budget
    for wrong in ("8G", "0GB", "0.5B", "101%", "much", True, None):
        with pytest.raises(ValidationError):
            MemoryBudget(target=wrong, context=2048)
    with pytest.raises(ValidationError):
        MemoryBudget(target="60%")
    assert MemoryBudget(target="60%", context=2048).label() == "memory 60% at 2048 tokens"
    most = MemoryBudget(target="8GB", context=2048, batch=4, bytes_per_weight=0.5, bytes_per_cached=1)
    assert most.label() == "memory 8GB at 4x2048 tokens of 0.5B weights 1B cache"
    small, own = trial({"kind": "memory", "target": "1kB", "context": 8}), space(network())
    with pytest.raises(UserError, match=r"out of reach for .* bytes of memory"):
        resolve_budget(small, own)


def test_vision_networks_are_refused_as_activations_are_not_counted() -> None:
    with pytest.raises(ValidationError) as refusal:
        trial(
            {"kind": "memory", "target": "60%", "context": 8},
            task={"kind": "classification", "data": "digits"},
            supernet={"model": "resnet18"},
            retrain={"epochs": 1, "lr": 0.1},
        )
    assert "task 'classification' has none of" in str(refusal.value)
    assert "bound macs, params or latency" in str(refusal.value)


def test_a_plan_takes_a_share_of_memory_for_a_share_of_work() -> None:
    own = trial({"kind": "memory", "target": "60%", "context": 8})
    count: Any = None
    assert _share(own, own.budget, count) == 0.6  # type: ignore[arg-type]
    assert _share(own, MemoryBudget(target="8GB", context=8), count) == 1
