"""The search space of transformers' language models: what is found, and that masking equals cutting."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from dms_bench.scaling import Supernet, count, cut
from tests.unit.language.language_helpers import KINDS, lively, network, random_mask, space, task

TOKENS = task().example_input(3)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_cut_equals_mask_and_its_costs_are_the_counters(kind: str, attention: str) -> None:
    model = lively(network(kind, attention))
    own = space(model)
    assert own.proof_error < 1e-12
    assert (own.macs, own.params) == (count(model, TOKENS).macs, count(model, TOKENS).params)
    keys = KINDS[kind][1].get("num_key_value_heads", 4)
    assert [group.size for group in own.groups if group.heads] == [keys] * 3
    assert [stage.size for stage in own.stages] == [3]
    assert {name for name in own.excluded if not name.endswith(("embed_tokens", "lm_head"))} == set()
    assert sum(group.size == 48 for group in own.groups) == 1  # the hidden width
    assert sum(group.size == 44 for group in own.groups) == 3

    net, mask = Supernet(model, own).eval(), random_mask(own)
    small = cut(model, own, own.architecture(mask)).eval()
    with torch.no_grad(), net.fixed(mask):
        expected = net(TOKENS)
    with torch.no_grad():
        found = small(TOKENS)
        assert float((found - model(TOKENS)).norm() / expected.norm()) > 0.01
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    counted = count(small, TOKENS)
    assert (counted.macs, counted.params) == (own.architecture(mask).macs, own.architecture(mask).params)


def test_a_cut_llama_is_the_llama_of_that_size_with_slices_of_the_weights() -> None:
    """An independent reference: transformers' own model at the small size, its weights selected by hand."""
    model = lively(network("llama, grouped queries"))
    own = space(model)
    hidden, ffn, kv = list(range(1, 29)), list(range(0, 40, 2)), [0, 2]
    groups = {group.name: tuple(kv if group.heads else hidden if group.size == 48 else ffn) for group in own.groups}
    kept = (0, 2)
    small = cut(model, own, own.architecture(_mask(own, groups, kept)))

    config = LlamaConfig(
        **{**model.lm.config.to_dict(), "hidden_size": 28, "intermediate_size": 20, "num_hidden_layers": 2}
        | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    )
    reference = LlamaForCausalLM(config).eval()
    rows = [8 * head + d for head in kv for d in range(8)]
    query_rows = [8 * head + d for head in (0, 1, 4, 5) for d in range(8)]  # queries 0, 1 read key 0; 4, 5 key 2
    state = model.lm.state_dict()
    selected = {
        "model.embed_tokens.weight": state["model.embed_tokens.weight"][:, hidden],
        "lm_head.weight": state["lm_head.weight"][:, hidden],
        "model.norm.weight": state["model.norm.weight"][hidden],
    }
    for new, old in enumerate(kept):
        mine, its = f"model.layers.{new}.", f"model.layers.{old}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            selected[f"{mine}{norm}.weight"] = state[f"{its}{norm}.weight"][hidden]
        for name, own_rows in (("q_proj", query_rows), ("k_proj", rows), ("v_proj", rows)):
            selected[f"{mine}self_attn.{name}.weight"] = state[f"{its}self_attn.{name}.weight"][own_rows][:, hidden]
        selected[f"{mine}self_attn.o_proj.weight"] = state[f"{its}self_attn.o_proj.weight"][hidden][:, query_rows]
        for name in ("gate_proj", "up_proj"):
            selected[f"{mine}mlp.{name}.weight"] = state[f"{its}mlp.{name}.weight"][ffn][:, hidden]
        selected[f"{mine}mlp.down_proj.weight"] = state[f"{its}mlp.down_proj.weight"][hidden][:, ffn]
    reference.load_state_dict(selected)
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(TOKENS), reference(TOKENS).logits, rtol=1e-4, atol=1e-5)


BOTH = [(kind, "sdpa") for kind in ("llama, grouped queries", "qwen2, tied", "qwen3", "phi", "phi3")]


@pytest.mark.parametrize(("kind", "attention"), [*BOTH, ("llama, grouped queries", "eager"), ("phi", "eager")])
def test_heads_and_their_sizes_are_searched_together(kind: str, attention: str) -> None:
    model = lively(network(kind, attention))
    own = space(model, attention="both")
    assert own.proof_error < 1e-12
    keys, size = KINDS[kind][1].get("num_key_value_heads", 4), model.lm.model.layers[0].self_attn.head_dim
    assert [group.size for group in own.groups if group.heads] == [keys] * 3
    assert [group.size for group in own.groups if group.name.endswith(".v_dims")] == [size] * 3
    # A rotated feature goes with its partner. Layers read one table of rotations, so that they have pairs in common.
    rotated = [group for group in own.groups if group.name == "lm.model.layers.qk_dims"]
    plain = [group for group in own.groups if group.name.endswith("self_attn.qk_dims")]
    assert len(rotated) == 1
    assert {2 * rotated[0].size + group.size for group in plain} == ({size} if plain else set())
    assert plain or rotated[0].size == size // 2

    for seed in range(2):
        net, mask = Supernet(model, own).eval(), random_mask(own, seed)
        architecture = own.architecture(mask)
        small = cut(model, own, architecture).eval()
        with torch.no_grad(), net.fixed(mask):
            expected = net(TOKENS)
        with torch.no_grad():
            assert float((small(TOKENS) - expected).norm() / expected.norm()) < 1e-5
        counted = count(small, TOKENS)
        assert (counted.macs, counted.params) == (architecture.macs, architecture.params)


def test_a_llama_with_smaller_heads_is_the_llama_of_that_size() -> None:
    """Transformers' own model again, with the kept rotations in its table and the old scale."""
    model = lively(network("llama, grouped queries"))
    own = space(model, attention="both")
    kv, pairs, values = [0, 2], [0, 2, 3], [0, 1, 3, 4, 5, 7]
    chosen = {"heads": kv, "qk_dims": pairs, "v_dims": values}
    groups = {group.name: tuple(chosen.get(group.name.rpartition(".")[2], range(group.size))) for group in own.groups}
    small = cut(model, own, own.architecture(_mask(own, groups, (0, 1, 2))))

    config = LlamaConfig(
        **model.lm.config.to_dict() | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
    )
    reference = LlamaForCausalLM(config).eval()
    rotary = reference.model.rotary_emb
    rotary.inv_freq = model.lm.model.rotary_emb.inv_freq[pairs]
    sizes = [*pairs, *(4 + pair for pair in pairs)]
    queries = [0, 1, 4, 5]
    state = dict(model.lm.state_dict())
    for layer in range(3):
        name = f"model.layers.{layer}.self_attn."
        for part, heads, dims in (("q", queries, sizes), ("k", kv, sizes), ("v", kv, values)):
            rows = [8 * head + dim for head in heads for dim in dims]
            state[f"{name}{part}_proj.weight"] = state[f"{name}{part}_proj.weight"][rows]
        columns = [8 * head + dim for head in queries for dim in values]
        state[f"{name}o_proj.weight"] = state[f"{name}o_proj.weight"][:, columns]
        reference.model.layers[layer].self_attn.scaling = 8**-0.5
    reference.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(TOKENS), reference(TOKENS).logits, rtol=1e-4, atol=1e-5)


def _mask(own, groups, blocks):
    mask = torch.zeros(own.units.total)
    for name, start in zip(own.names, own.units.starts, strict=True):
        for index in groups.get(name, blocks):
            mask[start + index] = 1
    return mask


def test_a_cut_leaves_positions_and_ratios_of_heads_alone() -> None:
    # Layer 2 has a number that is equal to a number of heads, and there are two queries for each key.
    model = network("qwen2, tied")
    own = space(model)
    small = cut(model, own, own.architecture(random_mask(own, share=0.5)))
    kept = [layer for layer in small.lm.model.layers if hasattr(layer, "self_attn")]
    assert [layer.self_attn.layer_idx for layer in kept] == [
        place for place, layer in enumerate(small.lm.model.layers) if hasattr(layer, "self_attn")
    ]
    assert {layer.self_attn.num_key_value_groups for layer in kept} == {2}


def test_shared_embeddings_stay_shared_and_masks_reach_both_uses() -> None:
    model = lively(network("qwen2, tied"))
    own = space(model)
    small = cut(model, own, own.architecture(random_mask(own)))
    assert small.lm.lm_head.weight is small.lm.model.embed_tokens.weight
    assert small.lm.lm_head.weight.shape[1] < 48
    small(TOKENS).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in small.parameters())


def test_an_outline_has_the_space_of_the_real_network() -> None:
    model = network("llama, grouped queries")
    own = space(model)
    outline = type(model)(LlamaForCausalLM(model.lm.config).to("meta")).eval()
    found = space(outline)
    assert (found.names, found.macs, found.params) == (own.names, own.macs, own.params)
    assert found.units == own.units
    assert found.proof_error != found.proof_error  # nothing was proven
    mask = random_mask(own)
    assert found.architecture(mask) == own.architecture(mask)


def test_frozen_weights_have_no_second_copy_and_no_gradient_of_their_size() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    model = lively(network())
    own = space(model, exclude=("lm.model.stream",))
    matrices = {
        tuple(p.shape) for n, p in model.named_parameters() if n.endswith(("o_proj.weight", "down_proj.weight"))
    }
    matrices |= {shape[::-1] for shape in matrices}
    kept_before = {p.data_ptr() for p in model.parameters()}

    class Watch(TorchDispatchMode):
        made: list[str] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for value in out if isinstance(out, tuple | list) else [out]:
                large = isinstance(value, torch.Tensor) and tuple(value.shape) in matrices
                if large and value.untyped_storage().data_ptr() not in kept_before:
                    self.made.append(str(func))
            return out

    tokens = task().example_input(40)  # many tokens: where scaling the weight would be the cheaper way
    for frozen in (True, False):
        for parameter in model.parameters():
            parameter.requires_grad_(not frozen)
        net = Supernet(model, own)
        Watch.made = []
        with Watch():
            net(tokens).square().mean().backward()
        assert bool(Watch.made) is not frozen, Watch.made
        assert net._probe.grad is not None
        assert float(net._probe.grad.abs().sum()) > 0
        from dms_bench.scaling.masks.state import strip_hooks

        strip_hooks(model)


def test_masked_norms_of_networks_in_half_precision_stay_in_it() -> None:
    model = lively(network()).to(torch.bfloat16)
    own = space(network())
    net = Supernet(model, own).eval()
    with torch.no_grad(), net.fixed(random_mask(own)):
        assert net(TOKENS).dtype == torch.bfloat16


def test_the_wrapper_returns_logits_and_is_causal() -> None:
    model = lively(network())
    assert isinstance(model, nn.Module)
    later = TOKENS.clone()
    later[:, 20:] = 5
    with torch.no_grad():
        one, other = model(TOKENS), model(later)
    torch.testing.assert_close(one[:, :20], other[:, :20])
    assert not torch.allclose(one[:, 20:], other[:, 20:])
