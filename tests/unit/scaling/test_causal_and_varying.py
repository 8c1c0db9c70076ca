"""A language model with a causal mask in a buffer, norms among as many samples, experts, and work that varies."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dms_bench.report.space import describe_space
from dms_bench.scaling import cut, find_space
from tests.unit.scaling.agreement import assert_masked_is_cut


class CausalAttention(nn.Module):
    """Slices its causal mask from a buffer that is as long as the longest text, as small GPTs are written."""

    def __init__(self, width: int, heads: int, longest: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.width = heads, width
        self.register_buffer("bias", torch.tril(torch.ones(longest, longest)).view(1, 1, longest, longest))

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.size()
        parts = self.qkv(x).split(self.width, dim=2)
        q, k, v = (part.view(rows, length, self.heads, width // self.heads).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))
        scores = self.masked(scores, self.bias[:, :, :length, :length])
        return self.projected((scores.softmax(-1) @ v).transpose(1, 2).contiguous().view(rows, length, width))

    def projected(self, x: Tensor) -> Tensor:
        return self.out(x)

    def masked(self, scores: Tensor, bias: Tensor) -> Tensor:
        return scores.masked_fill(bias == 0, float("-inf"))


class AddedMask(CausalAttention):
    """Adds to the scores what the buffer says, so that its rows and columns meet the text's positions."""

    def masked(self, scores: Tensor, bias: Tensor) -> Tensor:
        return scores * bias - 1e4 * (1 - bias)

    def projected(self, x: Tensor) -> Tensor:
        return self.out(x.view(-1, x.size(-1))).view(x.size())


class Block(nn.Module):
    def __init__(self, attention: nn.Module, width: int) -> None:
        super().__init__()
        self.before, self.attention, self.between = nn.LayerNorm(width), attention, nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before(x))
        return x + self.mlp(self.between(x))


class SmallGpt(nn.Module):
    def __init__(self, attention: type[CausalAttention], width: int = 16) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(30, width), nn.Embedding(20, width)
        self.blocks = nn.ModuleList(Block(attention(width, 4, 20), width) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 30, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, text: Tensor) -> Tensor:
        x = self.tokens(text) + self.positions(torch.arange(text.size(1)))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@pytest.mark.parametrize("attention", [CausalAttention, AddedMask])
def test_a_small_gpt_is_searched_and_cut_for_texts_of_any_length(attention: type[CausalAttention]) -> None:
    model = SmallGpt(attention)
    space = assert_masked_is_cut(model, torch.randint(0, 30, (2, 11)))
    assert {group.name for group in space.groups if group.heads}
    assert sum(stage.size for stage in space.stages) >= 2
    low, high = space.reachable(space.macs_model)
    assert low < 0.1 * high
    small = cut(model, space, space.architecture(space.full()))
    for length in (1, 5, 20):
        text = torch.randint(0, 30, (3, length))
        torch.testing.assert_close(small(text), model(text))


class NormAmongSamples(nn.Module):
    """Folds positions into the batch, which is then as large as the features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.places = nn.Parameter(torch.randn(4, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) + self.places
        return self.head(self.norm(x.reshape(-1, 1, 8))).reshape(len(x), 4, 3)


def test_a_norm_is_over_features_where_as_many_samples_lie_before_them() -> None:
    space = assert_masked_is_cut(NormAmongSamples(), torch.randn(2, 4, 5))
    assert [group.size for group in space.groups] == [8]


class ShapedLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mixed, self.head = nn.Linear(5, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.mixed(x.reshape(-1, x.size(-1))).tanh().view_as(x))


def test_what_is_shaped_like_another_keeps_its_own_width() -> None:
    space = assert_masked_is_cut(ShapedLike(), torch.randn(2, 7, 5))
    assert [group.size for group in space.groups] == [12, 12]


class Router(nn.Linear):
    """Returns scores and choices."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        scores = super().forward(x)
        return scores, scores.argmax(-1)


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.router, self.head = nn.Linear(6, 10), Router(10, 3), nn.Linear(10, 2)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 10)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(0, 1)
        scores, choice = self.router(x)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = torch.where(choice == number)[0]
            out.index_add_(0, rows, expert(x[rows]) * scores.softmax(-1)[rows, number, None])
        return self.head(x + out)


def test_experts_are_searched_though_masks_send_tokens_elsewhere_and_the_space_says_so() -> None:
    torch.manual_seed(0)
    model = Experts().double().eval()
    space = find_space(model, torch.randn(2, 16, 6).double())
    assert space.proof_error < 1e-12
    assert len(space.groups) == 4
    assert space.macs_vary
    assert describe_space("experts", "tokens", space)["macs_vary"] is True


def test_the_macs_of_a_plain_network_do_not_vary_and_are_compared() -> None:
    space = find_space(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 4))
    assert not space.macs_vary


class NeedsItsTokens(Experts):
    """Fails where other tokens than at first come to an expert: under masks, and under other weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        _, choice = self.router(self.stem(x).flatten(0, 1))
        if not torch.equal(self.first.setdefault(len(x), choice), choice):
            raise RuntimeError("no tokens")
        return super().forward(x)


def test_a_network_that_does_not_run_under_masks_is_refused_with_the_place() -> None:
    torch.manual_seed(0)
    space = find_space(NeedsItsTokens().double().eval(), torch.randn(2, 16, 6).double())
    assert not space.groups
    assert any("fails in NeedsItsTokens" in reason for reason in space.excluded.values())
