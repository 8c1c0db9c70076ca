"""Operators between two layers: found, and the cut equals a network in which the removed features are cut off by hand.

The reference is the uncut network with zeros where the second layer would read what was removed: plain PyTorch, which
knows nothing of labels, masks or surgery.
"""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.scaling import cut, find_space


class Between(nn.Module):
    """A layer, operators, a layer; `keeps` says how many features of the first come out of the operators as one."""

    def __init__(self, first: nn.Module, between, second: nn.Module):
        super().__init__()
        self.first, self.between, self.second = first, between, second

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x)))


def scattered(x: Tensor, how: str) -> Tensor:
    places = torch.tensor([0, 2, 2, 1, 0])
    wide = places.unsqueeze(-1).expand(-1, x.size(-1))
    out = x.new_zeros(4, x.size(-1))
    if how == "scatter_reduce":
        return out.scatter_reduce(0, wide, x, "amax")
    return getattr(out, how)(0, wide if how.startswith("scatter") else places, x)


def sampled(x: Tensor) -> Tensor:
    grid = torch.linspace(-1, 1, 5, dtype=x.dtype)
    return functional.grid_sample(
        x, torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1)[None].expand(len(x), -1, -1, -1)
    )


def cells(rank: int):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    return conv(3, 10, 1), conv(10, 4, 1), torch.randn(2, 3, *[6] * rank)


def layers():
    return nn.Linear(6, 10), nn.Linear(10, 4), torch.randn(5, 6)


OPERATORS = {
    "max_pool3d": (3, nn.MaxPool3d(2)),
    "avg_pool3d": (3, nn.AvgPool3d(2)),
    "adaptive_avg_pool3d": (3, nn.AdaptiveAvgPool3d(2)),
    "adaptive_max_pool3d": (3, nn.AdaptiveMaxPool3d(2)),
    "trilinear": (3, lambda x: functional.interpolate(x, scale_factor=2, mode="trilinear")),
    "nearest3d": (3, lambda x: functional.interpolate(x, scale_factor=2)),
    "nearest-exact": (2, lambda x: functional.interpolate(x, scale_factor=2, mode="nearest-exact")),
    "linear": (1, lambda x: functional.interpolate(x, scale_factor=2, mode="linear")),
    "adaptive_max_pool1d": (1, nn.AdaptiveMaxPool1d(3)),
    "replicate": (3, nn.ReplicationPad3d(1)),
    "reflect": (1, nn.ReflectionPad1d(2)),
    "grid_sample": (2, sampled),
    "zeros_like": (2, lambda x: torch.cat([x, torch.zeros_like(x)], 2)),
    "full_like": (1, lambda x: x + torch.full_like(x, 0.5)),
    "fourier": (1, lambda x: torch.fft.irfft(torch.fft.rfft(x), n=6)),
    "fft2": (2, lambda x: torch.view_as_real(torch.fft.fft2(x)).sum(-1)),
    "logsumexp": (1, lambda x: x.logsumexp(2, keepdim=True)),
    "topk": (1, lambda x: x.topk(2, 2).values),
    "sort": (1, lambda x: x.sort(-1).values),
    "cumprod": (1, lambda x: x.cumprod(-1)),
    "tril": (3, lambda x: x.tril()),
    "index_select": (0, lambda x: x.index_select(0, torch.tensor([3, 3, 1]))),
    "gather": (0, lambda x: x.gather(0, torch.tensor([[3], [1]]).expand(-1, x.size(1)))),
    **{how: (0, lambda x, how=how: scattered(x, how)) for how in ("scatter", "scatter_add", "index_add", "index_copy")},
    # The same number for all features, as many as there are (the mean of a graph's neighbours).
    "expanded": (0, lambda x: x / torch.arange(1, 1 + len(x)).unsqueeze(1).expand_as(x)),
    "scatter_reduce": (0, lambda x: scattered(x, "scatter_reduce")),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_features_pass_an_operator(name):
    rank, between = OPERATORS[name]
    first, second, x = cells(rank) if rank else layers()
    net = Between(first, between, second).eval()
    space = find_space(net, x)
    assert [(group.name, group.size) for group in space.groups] == [("first", 10)], space.excluded
    assert space.proof_error < 1e-12
    mask = torch.ones(10)
    mask[[0, 3, 4, 9]] = 0
    small = cut(net, space, space.architecture(mask))
    by_hand = copy.deepcopy(net)
    with torch.no_grad():
        by_hand.second.weight[:, mask == 0] = 0
        torch.testing.assert_close(small(x), by_hand(x))
    assert small.first.weight.size(0) == small.second.weight.size(1) == 6


@pytest.mark.parametrize(("groups", "outputs"), [(12, 12), (12, 24), (4, 8), (3, 24)])
def test_groups_of_a_transposed_convolution_go_with_their_outputs(groups, outputs):
    net = nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.ConvTranspose2d(12, outputs, 3, 2, groups=groups), nn.Conv2d(outputs, 4, 1)
    )
    x = torch.randn(2, 3, 5, 5)
    space = find_space(net, x)
    assert [group.size for group in space.groups] == [groups]
    mask = torch.ones(groups)
    mask[[0, 2]] = 0
    small = cut(net, space, space.architecture(mask))
    by_hand = copy.deepcopy(net)
    with torch.no_grad():
        by_hand[2].weight.view(4, groups, -1)[:, mask == 0] = 0
        torch.testing.assert_close(small(x), by_hand(x))
    sizes = small[1].in_channels, small[1].out_channels, small[1].groups
    assert sizes == tuple(size * (groups - 2) // groups for size in (12, outputs, groups))


def test_the_halves_of_a_gated_linear_unit_go_together():
    net = nn.Sequential(nn.Linear(6, 20), nn.GLU(), nn.Linear(10, 4))
    x = torch.randn(5, 6)
    space = find_space(net, x)
    assert [(group.name, group.size) for group in space.groups] == [("0", 10)]
    mask = torch.ones(10)
    mask[[1, 2, 7]] = 0
    small = cut(net, space, space.architecture(mask))
    by_hand = copy.deepcopy(net)
    with torch.no_grad():
        by_hand[2].weight[:, mask == 0] = 0
        torch.testing.assert_close(small(x), by_hand(x))
    assert small[0].out_features == 14


def test_a_bag_of_embeddings_is_as_wide_as_what_reads_it():
    net = nn.Sequential(nn.EmbeddingBag(20, 10), nn.Linear(10, 4))
    x = torch.randint(20, (5, 3))
    space = find_space(net, x)
    assert [(group.name, group.size) for group in space.groups] == [("0", 10)]
    small = cut(net, space, space.architecture(torch.tensor([1.0, 0.0] * 5)))
    assert small[0].weight.shape == (20, 5)
    torch.testing.assert_close(small(x), net[0](x)[:, ::2] @ net[1].weight[:, ::2].T + net[1].bias)


RUNS_OVER = {
    "softmax": lambda x: x.softmax(1),
    "topk": lambda x: x.topk(10, 1).values,
    "sort": lambda x: x.sort(1).values,
    "cumsum": lambda x: x.cumsum(1),
    "fourier": lambda x: torch.fft.fft(x, dim=1).real,
    "gather": lambda x: x.gather(1, torch.arange(10).flip(0).expand(len(x), -1)),
    "index_select": lambda x: x.index_select(1, torch.arange(10).flip(0)),
    "index_add": lambda x: torch.zeros_like(x).index_add(1, torch.arange(10).flip(0), x),
    "tril": lambda x: x.tril(),
    "logsumexp": lambda x: x + x.logsumexp(1, keepdim=True),
}


@pytest.mark.parametrize("name", RUNS_OVER)
def test_features_that_an_operator_mixes_are_not_searched(name):
    first, second, x = layers()
    space = find_space(Between(first, RUNS_OVER[name], second), x)
    assert not space.groups
    assert "first" in space.excluded
