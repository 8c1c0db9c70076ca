"""Sizes of attention heads: masked queries equal smaller heads, whatever the attention divides by."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.scaling import SearchSpace, Supernet, apply_structure, count, cut, find_space, plan_surgery


class Attention(nn.Module):
    """Queries, keys and values from layers of their own, three heads of eight."""

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.num_heads, self.scale = 3, scale
        self.q, self.k, self.v = (nn.Linear(12, 24, bias=name != "k") for name in "qkv")
        self.proj = nn.Linear(24, 12)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = (
            layer(x).view(batch, tokens, self.num_heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        x = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(x.transpose(1, 2).flatten(2))


class Network(nn.Module):
    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.stem, self.attn, self.head = nn.Linear(4, 12), Attention(scale), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attn(self.stem(x)))


def half(space: SearchSpace) -> Tensor:
    mask = space.full()
    for unit, (start, size) in enumerate(zip(space.units.starts, space.units.sizes, strict=True)):
        if unit < len(space.groups):
            mask[start + torch.randperm(size, generator=torch.Generator().manual_seed(unit))[: size // 2]] = 0
    return mask


def agree(model: nn.Module, space: SearchSpace, example: Tensor) -> None:
    """Masked, cut and rebuilt networks are the same, and cost what is predicted."""
    mask = half(space)
    architecture = space.architecture(mask)
    small = cut(model, space, architecture).eval()
    net = Supernet(copy.deepcopy(model), space).eval()
    with torch.no_grad(), net.fixed(mask.to(example.dtype)):
        torch.testing.assert_close(small(example), net(example))
    counted = count(small, example)
    assert (counted.macs, counted.params) == (architecture.macs, architecture.params)
    again = copy.deepcopy(model)
    apply_structure(again, plan_surgery(model, space, architecture))
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again.eval()(example), small(example))


@pytest.mark.parametrize("scale", [None, 0.3])
def test_queries_and_keys_and_values_of_their_own_layers_have_sizes_of_their_own(scale):
    torch.manual_seed(0)
    model, example = Network(scale).eval(), torch.randn(2, 5, 4)
    space = find_space(model, example, attention="dims")
    assert {group.name: group.size for group in space.groups} == {
        "stem": 12,
        "attn.qk_dims": 8,
        "attn.v.v_dims": 8,
        "attn.proj": 12,
    }
    assert {row.scaled for row in space.rows} == {scale is None}
    assert space.proof_error < 1e-12
    agree(model.double(), space, example.double())


def test_heads_of_a_vit_shrink():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, num_classes=5).eval().double()
    example = torch.randn(2, 3, 32, 32).double()
    space = find_space(model, example, attention="dims")
    sizes = {group.name: group.size for group in space.groups}
    assert sizes["blocks.3.attn.qkv.qk_dims"] == sizes["blocks.3.attn.qkv.v_dims"] == 32
    assert not any(group.heads for group in space.groups)
    assert space.proof_error < 1e-12
    agree(model, space, example)
    small = cut(model, space, space.architecture(half(space)))
    assert small.blocks[0].attn.qkv.out_features == 3 * 2 * 16
    mask = space.full()
    mask[torch.tensor(space.units.starts)[[name.endswith("v_dims") for name in space.names]]] = 0
    small = cut(model, space, space.architecture(mask))
    assert small.blocks[0].attn.qkv.out_features == 2 * (2 * 32 + 31)


def test_only_queries_are_masked():
    model = timm.create_model("test_vit", img_size=32, num_classes=5).eval()
    space = find_space(model, torch.randn(1, 3, 32, 32), attention="dims")
    row = next(row for row in space.rows if row.parameter == "blocks.0.attn.qkv.weight")
    elements = row.elements
    assert bool((elements[:64] >= 0).all())
    assert bool((elements[64:] == -1).all())
    assert torch.equal(elements[:32], elements[32:64])  # of both heads


def test_ratios_of_head_sizes_learn():
    model = timm.create_model("test_vit", img_size=32, num_classes=5)
    net = Supernet(model, find_space(model, torch.randn(1, 3, 32, 32), attention="dims"))
    net.importance.copy_(torch.rand(len(net.importance)))
    with torch.no_grad():
        net.ratios.fill_(0.3)
    net(torch.randn(4, 3, 32, 32)).square().mean().backward()
    gradients = dict(zip(net.space.names, net.ratios.grad.tolist(), strict=True))
    assert all(gradient != 0 for name, gradient in gradients.items() if name.endswith("_dims"))
    assert isinstance(model.blocks[0].attn.qkv.weight, nn.Parameter)


def test_queries_that_no_layer_makes_are_left_alone():
    class Given(Attention):
        def __init__(self) -> None:
            super().__init__(None)
            self.query = nn.Parameter(torch.randn(5, 3, 8))

        def forward(self, x: Tensor) -> Tensor:
            batch, tokens, _ = x.shape
            k, v = (layer(x).view(batch, tokens, self.num_heads, -1).transpose(1, 2) for layer in (self.k, self.v))
            q = self.query.transpose(0, 1).expand(batch, -1, -1, -1)
            return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    model = Network(None)
    model.attn = Given()
    space = find_space(model.eval(), torch.randn(2, 5, 4), attention="dims")
    assert {group.name for group in space.groups} == {"stem", "attn.proj", "attn.v.v_dims"}
    assert space.excluded["attn.k"] == "queries that are no rows of a layer"
    assert space.proof_error < 1e-12
