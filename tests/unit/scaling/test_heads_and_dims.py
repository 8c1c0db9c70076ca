"""Heads and their sizes in one space: products of two masks, against attention written by hand."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.scaling import (
    Coarse,
    SearchSpace,
    Supernet,
    apply_structure,
    budget_of,
    count,
    cut,
    find_space,
    plan_surgery,
    weight_norms,
)
from dms_bench.scaling.example import Example
from dms_bench.scaling.fit import fit_to_budget
from dms_bench.scaling.latency import timing

HEADS, SIZE, WIDTH = 3, 8, 12


class Attention(nn.Module):
    """Queries, keys and values from one layer; divides by the square root of the size that it sees, or by its own."""

    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        self.num_heads, self.fused = HEADS, fused
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * HEADS * SIZE), nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            x = functional.scaled_dot_product_attention(q, k, v)
        else:
            x = (q * SIZE**-0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).flatten(2))


class Network(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.stem, self.attn, self.head = nn.Linear(4, WIDTH), attention, nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attn(self.stem(x)))


def toy(fused: bool = True) -> tuple[Network, Tensor, SearchSpace]:
    torch.manual_seed(0)
    model, example = Network(Attention(fused)).double().eval(), torch.randn(2, 5, 4).double()
    space = find_space(model, example, attention="both", exclude=("stem", "attn.proj"))
    assert space.proof_error < 1e-12
    return model, example, space


def by_hand(model: Network, x: Tensor, heads: Tensor, qk: Tensor, v: Tensor) -> Tensor:
    """Q' = Q m_qk, V' = V m_v m_head, divided by the square root of the whole size: the reference."""
    x = model.stem(x)
    rows = model.attn.qkv(x).view(*x.shape[:2], 3, HEADS, SIZE)
    queries, keys, values = (rows[:, :, part].transpose(1, 2) for part in range(3))
    scores = torch.einsum("bhnd,bhmd,d->bhnm", queries, keys, qk) / SIZE**0.5
    mixed = torch.einsum("bhnm,bhmd,d,h->bnhd", scores.softmax(-1), values, v, heads)
    return model.head(model.attn.proj(mixed.flatten(2)))


def masks(space: SearchSpace, mask: Tensor) -> tuple[Tensor, ...]:
    parts = dict(zip(space.names, mask.split(list(space.units.sizes)), strict=True))
    return tuple(parts[f"attn.qkv.{kind}"] for kind in ("heads", "qk_dims", "v_dims"))


def some(space: SearchSpace, share: float = 0.5, seed: int = 0) -> Tensor:
    mask, generator = torch.zeros(space.units.total), torch.Generator().manual_seed(seed)
    for start, size, low in zip(space.units.starts, space.units.sizes, space.units.minimum, strict=True):
        mask[start + torch.randperm(size, generator=generator)[: max(low, 1, int(share * size))]] = 1
    return mask


@pytest.mark.parametrize("fused", [True, False])
def test_soft_masks_and_their_gradients_are_those_of_the_formula(fused):
    model, x, space = toy(fused)
    assert {group.name: group.size for group in space.groups} == {
        "attn.qkv.qk_dims": SIZE,
        "attn.qkv.heads": HEADS,
        "attn.qkv.v_dims": SIZE,
    }
    mask = torch.rand(space.units.total).double()
    net = Supernet(copy.deepcopy(model), space).double()
    own, hand = mask.clone().requires_grad_(), mask.clone().requires_grad_()
    with net.fixed(own):
        found = net(x)
    expected = by_hand(model, x, *masks(space, hand))
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(own.grad, hand.grad)
    assert bool((own.grad != 0).all())


def test_importance_of_an_element_is_by_the_gradient_of_its_own_mask():
    model, x, space = toy()
    net = Supernet(copy.deepcopy(model), space).double()
    soft = net.soft_mask().detach().double().requires_grad_()
    by_hand(model, x, *masks(space, soft)).square().mean().backward()
    net(x).square().mean().backward()
    torch.testing.assert_close(net._probe.grad, soft.grad)
    net.update()
    torch.testing.assert_close(net.importance.double(), 0.01 * (soft * soft.grad).square().detach())


@pytest.mark.parametrize("fused", [True, False])
def test_a_cut_network_is_the_selected_rows_with_the_old_scale(fused):
    model, x, space = toy(fused)
    mask = some(space)
    architecture = space.architecture(mask)
    small = cut(model, space, architecture).eval()
    torch.testing.assert_close(small(x), by_hand(model, x, *masks(space, mask.double())))
    heads, qk, v = (kept.nonzero().flatten().tolist() for kept in masks(space, mask))
    rows = [
        (part * HEADS + head) * SIZE + dim for part, dims in enumerate((qk, qk, v)) for head in heads for dim in dims
    ]
    weight = model.attn.qkv.weight[rows].clone()
    if fused:
        weight[: len(heads) * len(qk)] *= (len(qk) / SIZE) ** 0.5
    torch.testing.assert_close(small.attn.qkv.weight, weight)
    assert small.attn.num_heads == len(heads)
    assert small.attn.proj.in_features == len(heads) * len(v)


def test_each_attention_is_known_to_divide_or_not():
    model = nn.Sequential(nn.Linear(4, WIDTH), *(Attention(fused) for fused in (True, False, True)))
    space = find_space(model.eval(), torch.randn(2, 5, 4), attention="both")
    assert {row.module: row.scaled for row in space.rows} == {"1.qkv": True, "2.qkv": False, "3.qkv": True}
    assert space.proof_error < 1e-12


def test_costs_are_the_products_hard_and_soft():
    model, _, space = toy()
    tokens, fixed = 5, 5 * (4 * WIDTH + WIDTH * 3)

    def macs(heads: Tensor, qk: Tensor, v: Tensor) -> Tensor:
        layer = tokens * WIDTH * heads * (2 * qk + v) + tokens * WIDTH * heads * v
        return fixed + layer + tokens**2 * heads * (qk + v)

    def params(heads: Tensor, qk: Tensor, v: Tensor) -> Tensor:
        rest = sum(p.numel() for layer in (model.stem, model.head) for p in layer.parameters())
        return rest + (WIDTH + 1) * heads * (2 * qk + v) + WIDTH * heads * v + WIDTH

    order = [space.names.index(f"attn.qkv.{kind}") for kind in ("heads", "qk_dims", "v_dims")]
    for kept in torch.tensor([[3.0, 8, 8], [2, 5, 1], [1.3, 2.7, 6.1]]).double():
        own = torch.zeros(3).double()
        own[order] = kept
        own.requires_grad_()
        for model_of, reference in ((space.macs_model, macs), (space.params_model, params)):
            found, hand = model_of(own, torch.ones(0)), kept.clone().requires_grad_()
            expected = reference(*hand)
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(
                torch.autograd.grad(found, own)[0][order], torch.autograd.grad(expected, hand)[0]
            )


NETWORKS = {
    "deit_tiny_patch16_224": ({"img_size": 32, "depth": 2, "embed_dim": 96}, 32, 2),
    "test_vit": ({"img_size": 32}, 32, 6),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (1, 1, 2, 1)},
        64,
        5,
    ),
}


def network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    args, size, _ = NETWORKS[name]
    return timm.create_model(name, num_classes=5, **args).eval().double(), torch.randn(2, 3, size, size).double()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_attention_has_three_ratios_and_masks_equal_cuts(name):
    model, example = network(name)
    space = find_space(model, example, attention="both")
    assert space.proof_error < 1e-12
    kinds = [group.name.rpartition(".")[2] for group in space.groups]
    assert [kinds.count(kind) for kind in ("heads", "qk_dims", "v_dims")] == [NETWORKS[name][2]] * 3
    assert (space.macs, space.params) == (count(model, example).macs, count(model, example).params)
    for seed in range(3):
        mask = some(space, 0.6, seed)
        architecture = space.architecture(mask)
        small = cut(model, space, architecture).eval()
        net = Supernet(copy.deepcopy(model), space).eval()
        with torch.no_grad(), net.fixed(mask.double()):
            torch.testing.assert_close(small(example), net(example))
        counted = count(small, example)
        assert (counted.macs, counted.params) == (architecture.macs, architecture.params)
        again = apply_structure_of(model, space, mask)
        again.load_state_dict(small.state_dict())
        torch.testing.assert_close(again(example), small(example))


def apply_structure_of(model: nn.Module, space: SearchSpace, mask: Tensor) -> nn.Module:
    again = copy.deepcopy(model)
    apply_structure(again, plan_surgery(model, space, space.architecture(mask)))
    return again.eval()


def test_what_both_finds_beside_attention_is_what_heads_finds():
    model, example = network("test_vit")
    both, heads = (find_space(model, example, attention=kind) for kind in ("both", "heads"))
    assert [name for name in both.names if not name.endswith("_dims")] == list(heads.names)
    plain = timm.create_model("test_resnet", num_classes=5).eval()
    both, heads = (find_space(plain, torch.randn(1, 3, 32, 32), attention=kind) for kind in ("both", "heads"))
    assert (both.names, both.units, both.inner_elements) == (heads.names, heads.units, {})
    assert all(torch.equal(own, heads.outer_elements[key]) for key, own in both.outer_elements.items())


def test_leaving_out_one_kind_leaves_the_others():
    model, example = network("test_vit")
    for pattern in ("*.heads", "*.qk_dims", "*.v_dims"):
        space = find_space(model, example, attention="both", exclude=(pattern,))
        assert space.proof_error < 1e-12
        assert len(space.groups) == 1 + 6 * 3
        mask = some(space)
        small = cut(model, space, space.architecture(mask)).eval()
        net = Supernet(copy.deepcopy(model), space).eval()
        with torch.no_grad(), net.fixed(mask.double()):
            torch.testing.assert_close(small(example), net(example))


class Prepared(Attention):
    """Does something with queries and keys before they are multiplied."""

    def __init__(self, prepare) -> None:
        super().__init__()
        self.prepare = prepare

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = self.prepare(q) @ self.prepare(k).transpose(-2, -1)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def test_sizes_that_cannot_be_searched_are_named_and_the_values_are():
    net = Network(Prepared(lambda x: x.softmax(-1))).eval()
    space = find_space(net, torch.randn(2, 5, 4), attention="both")
    assert {group.name for group in space.groups} == {"stem", "attn.qkv.heads", "attn.qkv.v_dims", "attn.proj"}
    assert space.excluded["attn.qkv.dims"] == "operator _softmax runs over it"


def test_sizes_of_cosines_are_searched():
    net = Network(Prepared(lambda x: functional.normalize(x, dim=-1))).eval()
    space = find_space(net, torch.randn(2, 5, 4), attention="both")
    assert "attn.qkv.qk_dims" in space.names
    assert space.proof_error < 1e-12


def test_a_bias_for_each_head_has_no_sizes_to_miss():
    class Biased(Attention):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(HEADS, 5, 5))

        def forward(self, x: Tensor) -> Tensor:
            batch, tokens, _ = x.shape
            q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            x = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.table)
            return self.proj(x.transpose(1, 2).flatten(2))

    space = find_space(Network(Biased()).eval(), torch.randn(2, 5, 4), attention="both")
    assert sorted(group.size for group in space.groups) == [HEADS, SIZE, SIZE, WIDTH, WIDTH]
    assert not any(name.endswith(".dims") for name in space.excluded)
    assert space.proof_error < 1e-12


def test_one_head_has_sizes():
    class Single(Attention):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads = 1

    space = find_space(Network(Single()).eval(), torch.randn(2, 5, 4), attention="both")
    assert {group.name: group.size for group in space.groups if "qkv" in group.name} == {
        "attn.qkv.qk_dims": HEADS * SIZE,
        "attn.qkv.v_dims": HEADS * SIZE,
    }
    assert space.proof_error < 1e-12


def test_sizes_that_the_code_joins_are_one():
    class Joined(Attention):
        def forward(self, x: Tensor) -> Tensor:
            batch, tokens, _ = x.shape
            joined = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = (joined + 1).unbind(0)
            x = functional.scaled_dot_product_attention(q, k, v - 1, scale=0.3)
            return self.proj(x.transpose(1, 2).flatten(2))

    class Shown(Joined):
        def forward(self, x: Tensor) -> Tensor:
            batch, tokens, _ = x.shape
            joined = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = (joined * 2).unbind(0)
            return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    model, example = Network(Shown()).double().eval(), torch.randn(2, 5, 4).double()
    space = find_space(model, example, attention="both")
    assert {group.name for group in space.groups} == {"stem", "attn.qkv.heads", "attn.qkv.dims", "attn.proj"}
    assert space.proof_error < 1e-12
    # Adding a number makes something of nothing, which no cut can equal: found by the proof.
    space = find_space(Network(Joined()).eval(), torch.randn(2, 5, 4), attention="both")
    assert {group.name for group in space.groups} == {"stem", "attn.qkv.heads", "attn.proj"}
    assert space.excluded["attn.qkv.dims"] == "the cut network does not equal the masked one"


def test_a_search_over_both_ends_at_the_budget_with_all_three_cut():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, num_classes=5)
    net = Supernet(model, find_space(model, torch.randn(1, 3, 32, 32), attention="both"))
    budget = budget_of(net.space, macs=0.5)
    structure = torch.optim.Adam(net.structure_parameters(), lr=5e-2)
    images, labels = torch.randn(16, 3, 32, 32), torch.randint(5, (16,))
    for step in range(30):
        loss = functional.cross_entropy(net(images), labels)
        (loss + net.resource_loss(budget.falling(step / 30, decay_share=0.8))).backward()
        structure.step()
        structure.zero_grad()
        net.update()
    assert bool((net.importance[: net.space.width_elements] > 0).all())
    architecture = net.architecture(budget)
    assert architecture.macs == pytest.approx(0.5 * net.space.macs, rel=0.01)
    sizes = net.space.sizes_of(architecture)
    for kind in ("qk_dims", "v_dims"):
        kept = [pair for name, pair in sizes.items() if name.endswith(kind)]
        assert any(stays < size for stays, size in kept)
    small = cut(model, net.space, architecture)
    assert count(small, images).macs == architecture.macs


def test_coarse_rules_and_rounding_apply_to_sizes_of_heads():
    model, example = network("test_vit")
    rules = [
        Coarse(groups="*.qk_dims", step=4, min=8, max=24),
        Coarse(groups="blocks.0.*.heads", min=2),
    ]
    space = find_space(model, example, attention="both", coarse=rules, round_to=8)
    units = {group.name: (group, multiple) for group, multiple in zip(space.groups, space.units.multiple, strict=False)}
    group, multiple = units["blocks.1.attn.qkv.qk_dims"]
    assert (group.size, group.step, group.minimum, group.maximum, multiple) == (8, 4, 2, 6, 2)
    assert units["blocks.1.attn.qkv.v_dims"][1] == 8
    assert "blocks.0.attn.qkv.heads" in space.excluded
    proposed = torch.tensor(space.units.sizes) * 0.4
    mask = fit_to_budget(space, proposed, torch.rand(space.units.total), budget_of(space, macs=0.5))
    architecture = space.architecture(mask)
    small = cut(model, space, architecture).eval()
    assert count(small, example).macs == architecture.macs
    for name, (kept, _) in space.sizes_of(architecture).items():
        if name.endswith("_dims"):
            assert kept % 8 == 0
    attentions = [block.attn for block in small.blocks if hasattr(block, "attn")]
    assert attentions
    assert all(one.proj.in_features % (8 * one.num_heads) == 0 for one in attentions)


def test_weights_of_an_element_are_those_of_all_its_indices():
    model, _, space = toy()
    heads, qk, v = masks(space, weight_norms(model, space))
    weight, bias = model.attn.qkv.weight.view(3, HEADS, SIZE, -1), model.attn.qkv.bias.view(3, HEADS, SIZE)
    rows = weight.square().sum(-1) + bias.square()
    columns = model.attn.proj.weight.square().sum(0).view(HEADS, SIZE)
    torch.testing.assert_close(heads.double(), (rows.sum((0, 2)) + columns.sum(1)).sqrt(), rtol=1e-5, atol=0)
    torch.testing.assert_close(qk.double(), rows[:2].sum((0, 1)).sqrt(), rtol=1e-5, atol=0)
    torch.testing.assert_close(v.double(), (rows[2].sum(0) + columns.sum(0)).sqrt(), rtol=1e-5, atol=0)


def test_latency_of_an_attention_depends_on_all_three():
    model, example, space = toy()
    found = {segment.name: segment.groups for segment in timing.segments_of(model, space, Example(example))}
    assert any(set(groups) == {0, 1, 2} for groups in found.values())
