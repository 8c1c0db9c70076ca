"""Sizes in models' code: they are recorded while tracing and patched in cut networks, at any batch size."""

import copy
import pickle

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.nn import functional

from dms_bench.scaling import Surgery, apply_structure, cut, find_space, plan_surgery
from dms_bench.scaling.tracing.calls import matching_dims


class Attention(nn.Module):
    """Its code computes the head size from the stream's width, which a cut changes."""

    def __init__(self, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        x = functional.scaled_dot_product_attention(*qkv.unbind(0))
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class Table(nn.Module):
    """A bias that another module asks for through a method."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.shape = (5, 5, heads)
        self.table = nn.Parameter(torch.randn(9, heads))
        self.register_buffer("index", torch.arange(25) % 9)

    def bias(self):
        return self.table[self.index].view(self.shape).permute(2, 0, 1).unsqueeze(0)


class Biased(Attention):
    """Attention with a learnt bias per head."""

    def __init__(self) -> None:
        super().__init__()
        self.relative = Table(3)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4).unbind(0)
        x = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.relative.bias())
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class Halves(nn.Module):
    """A split into halves, of which one gates the other, and a slice by position."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 24
        self.wide, self.back, self.part = nn.Linear(24, 64), nn.Linear(32, 24), nn.Linear(8, 8)

    def forward(self, x):
        one, other = self.wide(x).chunk(2, dim=-1)
        x = self.back(one * other.sigmoid())
        return torch.cat([self.part(x[..., :8]), x[..., 8 : self.width]], dim=-1)


class Merged(Attention):
    """Heads are merged into the batch, as windows of attention do."""

    def forward(self, x):
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = (one.reshape(b * self.num_heads, n, c // self.num_heads) for one in qkv.unbind(0))
        x = (q @ k.transpose(1, 2)).softmax(-1) @ v
        x = x.view(b, self.num_heads, n, c // self.num_heads).transpose(1, 2).reshape(b, n, c)
        return self.proj(x)


class Network(nn.Module):
    """A transformer's frame around one of the above."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.embed, self.norm, self.inner, self.head = nn.Linear(6, 24), nn.LayerNorm(24), inner, nn.Linear(24, 4)

    def forward(self, x):
        x = self.embed(x)
        return self.head((x + self.inner(self.norm(x))).mean(1))


def built(inner):
    torch.manual_seed(0)
    model = Network(inner).eval()
    space = find_space(model, torch.randn(1, 5, 6))
    mask = torch.zeros(space.units.total)
    for start, size, low in zip(space.units.starts, space.units.sizes, space.units.minimum, strict=True):
        mask[start + size - max(low, size // 2) : start + size] = 1
    return model, space, space.architecture(mask)


@pytest.mark.parametrize("kind", [Attention, Biased, Merged])
def test_stream_and_heads_are_searched_though_the_code_computes_sizes(kind):
    _, space, _ = built(kind())
    assert {group.size for group in space.groups if group.heads} == {3}
    assert ("stream", 24) in [(group.name, group.size) for group in space.groups]
    assert space.proof_error < 1e-10
    assert "inner" in space.patched


def test_halves_of_a_split_shrink_together_and_slices_follow_their_elements():
    _, space, _ = built(Halves())
    sizes = sorted(group.size for group in space.groups)
    assert 32 in sizes  # both halves are one group
    assert sum(size for size in sizes if size != 32) >= 24  # the two parts of the stream
    assert space.proof_error < 1e-10


@pytest.mark.parametrize("kind", [Attention, Biased, Merged, Halves])
@pytest.mark.parametrize("batch", [1, 3])
def test_cut_networks_take_any_batch_are_copied_pickled_rebuilt_and_trained(kind, batch):
    model, space, architecture = built(kind())
    small = cut(model, space, architecture)
    x = torch.randn(batch, 5, 6)
    expected = small(x)
    alone = torch.cat([small(one[None]) for one in x])
    torch.testing.assert_close(expected, alone)
    torch.testing.assert_close(copy.deepcopy(small)(x), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(small))(x), expected)
    again = copy.deepcopy(model)
    apply_structure(again, plan_surgery(model, space, architecture))
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again.eval()(x), expected)
    small.train()(x).square().mean().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_mended_sizes_survive_json():
    model, space, architecture = built(Attention())
    surgery = plan_surgery(model, space, architecture)
    adapter = TypeAdapter(Surgery)
    assert surgery.patches
    assert adapter.validate_json(adapter.dump_json(surgery)) == surgery


def test_cut_networks_can_be_compiled_and_exported():
    model, space, architecture = built(Biased())
    small, x = cut(model, space, architecture), torch.randn(2, 5, 6)
    torch.testing.assert_close(torch.compile(small, backend="eager")(x), small(x))
    torch.testing.assert_close(torch.export.export(small, (x,)).module()(x), small(x))


def test_a_failing_forward_pass_leaves_no_mode_behind():
    model, space, architecture = built(Attention())
    small = cut(model, space, architecture)
    with pytest.raises(RuntimeError):
        small(torch.randn(2, 5, 7))
    small.inner.register_forward_pre_hook(lambda module, args: (args[0][0, 0],))
    with pytest.raises(ValueError, match="unpack"):
        small(torch.randn(2, 5, 6))
    assert torch.randn(6, 4).reshape(3, 8).shape == (3, 8)
    assert torch._C._len_torch_function_stack() == 0


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((2, 5, 24), (2, 5, 3, 8), [([0], [0]), ([1], [1]), ([2], [2, 3])]),
        ((2, 3, 5, 8), (6, 5, 8), [([0, 1], [0]), ([2], [1]), ([3], [2])]),
        ((2, 6, 4), (2, 24), [([0], [0]), ([1, 2], [1])]),
        ((2, 6), (3, 4), [([0, 1], [0, 1])]),
        ((4, 1), (4,), [([0, 1], [0])]),
        ((4,), (4, 1, 1), [([0], [0, 1, 2])]),
    ],
)
def test_matching_dims_of_a_reshape(before, after, expected):
    assert matching_dims(before, after) == expected


class OneIntegerTwoSizes(nn.Module):
    """Its integer is the size of two groups, so no cut can tell whose it is."""

    def __init__(self):
        super().__init__()
        self.width = 8
        self.first, self.second = nn.Linear(4, 8), nn.Linear(4, 8)
        self.one_head, self.other_head = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x):
        return self.one_head(self.first(x).relu()) + self.other_head(self.second(x).tanh())


def test_an_integer_of_two_sizes_is_left_alone_whatever_a_cut_keeps_of_them():
    """Also by one that keeps as many of both, and where one of them stays after all: neither was proven otherwise."""
    model = OneIntegerTwoSizes()
    space = find_space(model, torch.randn(2, 4))
    assert [group.size for group in space.groups] == [8, 8]
    for searched in (space, space.without(["second"], "stays"), space.without(["first"], "stays")):
        mask = torch.cat([torch.arange(unit) < unit // 2 for unit in searched.units.sizes]).float()
        small = cut(model, searched, searched.architecture(mask))
        assert small.width == 8
        assert {small.first.out_features, small.second.out_features} <= {4, 8}
