"""torch's own transformer layers, which run fused in eval mode: searched, counted, masked and cut like any other."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from dms_bench.scaling import Supernet, apply_structure, count, cut, find_space, plan_surgery
from dms_bench.scaling.modules.attention import OpenAttention, in_the_open, may_fuse
from tests.unit.scaling.agreement import assert_masked_is_cut, make_generic

TOKENS = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def fused():
    """The fused form is on, as torch has it."""
    assert torch.backends.mha.get_fastpath_enabled()
    yield
    assert torch.backends.mha.get_fastpath_enabled()


class Encoder(nn.Module):
    def __init__(self, layers=2, batch_first=True, final=False, nested=False, padded=False, **options):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=batch_first, **options)
        norm = nn.LayerNorm(16) if final else None
        self.first, self.last, self.padded, self.batch_first = nn.Linear(8, 16), nn.Linear(16, 5), padded, batch_first
        self.encoder = nn.TransformerEncoder(layer, layers, norm=norm, enable_nested_tensor=nested)

    def forward(self, x):
        x = self.first(x)
        padding = torch.arange(x.size(1)).expand(len(x), -1) > 4 if self.padded else None
        x = self.encoder(x if self.batch_first else x.transpose(0, 1), src_key_padding_mask=padding)
        x = self.last(x if self.batch_first else x.transpose(0, 1))
        return x[:, :5] if self.padded else x


def macs(width=16, heads=16, hidden=32, layers=2, tokens=6):
    """Of the encoder by hand: projections, scores and values, feed-forward."""
    layer = 4 * width * heads + 2 * tokens * heads + 2 * width * hidden
    return tokens * (8 * width + layers * layer + width * 5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm_first": True},
        {"norm_first": True, "final": True, "layers": 3},
        {"final": True, "activation": "gelu"},
        {"batch_first": False},
        {"batch_first": False, "norm_first": True, "activation": "gelu"},
        {"layers": 1},
        {"layers": 3, "nested": True, "padded": True},
        {"bias": False},
        {"activation": functional.silu},
    ],
    ids=lambda options: str({name: getattr(value, "__name__", value) for name, value in options.items()}),
)
def test_encoders_are_searched_counted_and_cut(options):
    space = assert_masked_is_cut(Encoder(**options), TOKENS)
    layers = options.get("layers", 2)
    assert sorted(group.size for group in space.groups) == sorted([16, *[4, 32] * layers])
    assert sum(group.heads for group in space.groups) == layers
    assert [stage.size for stage in space.stages] == ([layers] if layers > 1 else [])
    assert space.macs == macs(layers=layers)
    assert set(space.excluded) <= {"last", "encoder.layers"}


@pytest.mark.parametrize("fast", [True, False])
def test_counts_do_not_depend_on_the_fused_form(fast):
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        assert count(Encoder().eval(), TOKENS).macs == macs()
        assert torch.backends.mha.get_fastpath_enabled() == fast
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("frozen", [False, True])
def test_masks_act_where_torch_would_run_fused(frozen):
    model = make_generic(Encoder())
    space = find_space(model, TOKENS.double())
    net = Supernet(model, space).double().eval()
    model.requires_grad_(not frozen)
    for unit, start in enumerate(space.units.starts):
        mask = space.full()
        mask[start] = 0
        with net.fixed(mask):
            learning = net(TOKENS.double()).detach()
            with torch.no_grad():
                validating = net(TOKENS.double())
                whole = model(TOKENS.double())
        torch.testing.assert_close(validating, learning)
        assert float((validating - whole).abs().max()) > 1e-4, space.names[unit]


def test_masks_of_norms_alone_act_too():
    # Without hooks on it a layer is run fused, and its norms are not called at all.
    model = make_generic(Encoder(norm_first=True))
    space = find_space(model, TOKENS.double())
    names = [name for name in space.names if name != "stream"]
    space = space.without(names, "for the test")
    net = Supernet(model, space).double().eval()
    mask = space.full()
    mask[:5] = 0
    small = cut(model, space, space.architecture(mask)).eval()
    with torch.no_grad(), net.fixed(mask):
        torch.testing.assert_close(net(TOKENS.double()), small(TOKENS.double()))


def test_cut_networks_train_rebuild_and_load():
    model = Encoder(nested=True)
    space = find_space(model, TOKENS)
    mask = space.full()
    for start, size in zip(space.units.starts, space.units.sizes, strict=True):
        mask[start : start + size // 2] = 0  # the first layer is gone, which torch asks how samples lie
    small = cut(model, space, space.architecture(mask)).train()
    small(TOKENS).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in small.parameters())
    again = Encoder(nested=True)
    apply_structure(again, plan_surgery(model, space, space.architecture(mask)))
    again.load_state_dict(small.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(TOKENS), small.eval()(TOKENS))
        grown = small(TOKENS.repeat(3, 2, 1))
    assert grown.shape == (6, 12, 5)
    assert type(model.encoder.layers[0].self_attn) is nn.MultiheadAttention  # left as it was


def test_a_cut_of_hidden_widths_alone_leaves_attention_to_torch():
    model = make_generic(Encoder())
    space = find_space(model, TOKENS.double())
    mask = space.full()
    start = space.units.starts[space.names.index("encoder.layers.0.linear1")]
    mask[start : start + 20] = 0
    small = cut(model, space, space.architecture(mask)).eval()
    assert type(small.encoder.layers[0].self_attn) is nn.MultiheadAttention
    with torch.no_grad():
        alone = small(TOKENS.double())
    torch.testing.assert_close(alone, small(TOKENS.double()))  # fused and not


class Decoder(nn.Module):
    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.memory, self.last = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 5)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 4, 32, batch_first=True, **options), 2)

    def forward(self, x):
        return self.last(self.decoder(self.first(x), self.memory(x).tanh()))


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 5)
        self.both = nn.Transformer(16, 4, 2, 2, 32, batch_first=True)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.both(x, x.flip(1)))


@pytest.mark.parametrize("make", [Decoder, lambda: Decoder(norm_first=True), Both])
def test_decoders(make):
    space = assert_masked_is_cut(make(), TOKENS)
    assert {stage.size for stage in space.stages} == {2}
    assert any("multihead_attn" in group.name and group.heads for group in space.groups)


class Attention(nn.Module):
    """Attention by itself: of a sequence to itself or to another, with what it shows of its heads used or not."""

    def __init__(self, cross=False, causal=False, shows="", needs=True, **options):
        super().__init__()
        torch.manual_seed(0)
        self.cross, self.causal, self.shows, self.needs = cross, causal, shows, needs
        self.first, self.other, self.last = nn.Linear(8, 16), nn.Linear(8, options.get("kdim", 16)), nn.Linear(16, 5)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, **options)

    def forward(self, x):
        own = self.first(x)
        other = self.other(x) if self.cross else own
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1), dtype=x.dtype) if self.causal else None
        options = {"need_weights": self.needs, "attn_mask": mask, "is_causal": self.causal}
        result, seen = self.attention(own, other, other, average_attn_weights=self.shows != "heads", **options)
        result = self.last(own + result)
        return result if not self.shows else result + seen.flatten(1).square().sum(1).view(-1, 1, 1)


@pytest.mark.parametrize(
    ("options", "heads"),
    [
        ({}, True),
        ({"needs": False}, True),
        ({"cross": True}, True),
        ({"cross": True, "needs": False, "bias": False}, True),
        ({"causal": True, "needs": False}, True),
        ({"shows": "mean"}, False),
        ({"shows": "heads"}, False),
        ({"cross": True, "kdim": 12, "vdim": 12}, True),
        ({"add_bias_kv": True}, False),
        ({"add_zero_attn": True}, False),
    ],
    ids=str,
)
def test_attention_alone(options, heads):
    space = assert_masked_is_cut(Attention(**options), TOKENS)
    assert [group.name for group in space.groups if group.heads] == ["attention.heads"] * heads
    named = {"attention", "attention.heads"} & set(space.excluded)
    assert bool(named) == (not heads)
    usual = not {"add_bias_kv", "add_zero_attn"} & set(options)
    assert ("stream" in space.names) == usual


@pytest.mark.parametrize("attention", ["dims", "both"])
def test_sizes_of_heads_are_searched_as_those_of_any_attention(attention):
    model = make_generic(Encoder())
    space = find_space(model, TOKENS.double(), attention=attention)
    assert space.proof_error < 1e-12
    layers = {name.rpartition(".")[0] for name in space.names if name.endswith("qk_dims")}
    assert len(layers) == len(model.encoder.layers)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("needs", [True, False])
@pytest.mark.parametrize("masks", ["none", "causal", "padding", "both", "heads"])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("average", [True, False])
def test_attention_in_the_open_is_torchs(batch_first, needs, masks, batched, average):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, batch_first=batch_first).double().train()
    tokens = torch.randn(4, 5, 12, dtype=torch.double) if batched else torch.randn(5, 12, dtype=torch.double)
    tokens = tokens if batch_first or not batched else tokens.transpose(0, 1).contiguous()
    options = {"need_weights": needs, "average_attn_weights": average}
    if masks in ("causal", "both"):
        options["attn_mask"] = torch.ones(5, 5).triu(1).bool()
    if masks == "heads":
        options["attn_mask"] = torch.randn((4 if batched else 1) * 3, 5, 5, dtype=torch.double)
    if masks in ("padding", "both"):
        options["key_padding_mask"] = torch.arange(5).expand(4, 5) > 3 if batched else torch.arange(5) > 3
    expected = attention(tokens, tokens, tokens, **options)
    with in_the_open(attention):
        assert type(attention) is OpenAttention
        found = attention(tokens, tokens, tokens, **options)
        other = attention(tokens, tokens.clone(), tokens.clone(), **options)
    assert type(attention) is nn.MultiheadAttention
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(other, expected)


def test_networks_without_attention_of_torchs_are_left_alone():
    assert not may_fuse(nn.Sequential(nn.Linear(3, 3)))
    assert may_fuse(Encoder())


def test_the_function_of_torchs_attention_keeps_what_it_reads_and_not_what_is_beside_it():
    class Pool(nn.Module):
        """A pool over positions as CLIP has it."""

        def __init__(self):
            super().__init__()
            self.stem, self.q, self.k, self.v = (nn.Linear(size, 16) for size in (8, 16, 16, 16))
            self.out, self.mid, self.last = nn.Linear(16, 10), nn.Linear(10, 14), nn.Linear(14, 3)

        def forward(self, x):
            x = self.stem(x)
            weights = {f"{name}_proj_weight": getattr(self, name).weight for name in "qkv"}
            pooled, _ = nn.functional.multi_head_attention_forward(
                *(x.mean(0, keepdim=True), x, x, 16, 4, None),
                *(torch.cat([self.q.bias, self.k.bias, self.v.bias]), None, None, False, 0.0),
                *(self.out.weight, self.out.bias),
                use_separate_proj_weight=True,
                need_weights=False,
                **weights,
            )
            return self.last(self.mid(pooled[0]).relu())

    torch.manual_seed(0)
    model, x = Pool().double().eval(), torch.randn(7, 2, 8).double()
    space = find_space(model, x)
    assert {group.name: group.size for group in space.groups} == {"out": 10, "mid": 14}
    assert space.excluded["stem"].startswith("inside torch's function of attention")
    mask = space.full()
    mask[[0, 3, 12]] = 0
    small = cut(model, space, space.architecture(mask))
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        by_hand.mid.weight[:, [0, 3]], by_hand.last.weight[:, 2] = 0, 0
    torch.testing.assert_close(small(x), by_hand(x))
