"""Sums over features in which no weight takes part: lengths, cosines, distances, attention with heads along the batch.

The reference is the uncut network with zeros in the rows of the layers that make the removed features: plain PyTorch,
which knows nothing of labels, masks or surgery.
"""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, spectral_norm

from dms_bench.scaling import Supernet, cut, find_space

GONE = [0, 3, 4, 9]


class Sums(nn.Module):
    """Layers of ten features, what is done with them, and a head on what comes out of that, a number for each sample.

    `makers` are the layers that must make nothing for a feature to be zero.
    """

    def __init__(self, reduce, *makers: nn.Module, inputs: int = 6):
        super().__init__()
        self.reduce, self.inputs = reduce, inputs
        self.makers = nn.ModuleList(makers)
        self.head = nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.reduce(self.makers, x).reshape(len(x), -1).sum(1, keepdim=True))


def linear() -> nn.Linear:
    return nn.Linear(6, 10)


def length(features: Tensor) -> Tensor:
    return torch.linalg.vector_norm(features, dim=1)


def piled(features: Tensor) -> Tensor:
    places = torch.arange(len(features)) // 2
    return features.new_zeros(len(features), features.size(1)).index_add(0, places, features)[places]


def written(features: Tensor) -> Tensor:
    """In place, into what was zero before."""
    return torch.zeros_like(features).add_(features)


def distances(features: Tensor) -> Tensor:
    squares = (features * features).sum(-1)
    return (squares[:, None] + squares[None, :] - 2 * features @ features.t()).exp().sum(1)


CASES = {
    "length": (lambda m, x: length(m[0](x)), linear),
    "sum of squares": (lambda m, x: (m[0](x) ** 2).sum(1), linear),
    "a power": (lambda m, x: m[0](x).abs().pow(1.5).sum(-1), linear),
    "convolved": (lambda m, x: length(m[0](x.unsqueeze(-1))), lambda: nn.Conv1d(6, 10, 1)),
    "activated": (lambda m, x: length(functional.gelu(m[0](x)).tanh()), linear),
    "gated": (lambda m, x: length(m[0](x) * x.sigmoid().mean(1, keepdim=True)), linear),
    "cosines": (lambda m, x: functional.normalize(m[0](x)) @ functional.normalize(m[0](x.flip(0))).t(), linear),
    "distances": (lambda m, x: distances(m[0](x)), linear),
    "cdist": (lambda m, x: torch.cdist(m[0](x), m[0](x).flip(0) + m[0](x)), linear),
    "of a sum": (lambda m, x: length(m[0](x) + m[1](x)), linear, linear),
    "piled": (lambda m, x: length(piled(m[0](x))), linear),
    "written": (lambda m, x: length(written(m[0](x))), linear),
    "magnitude": (lambda m, x: m[0](x).abs() / m[0](x).abs().max(), linear),
}


@pytest.mark.parametrize("name", CASES)
def test_a_feature_that_is_zero_adds_nothing_to_a_sum(name):
    reduce, *makers = CASES[name]
    torch.manual_seed(0)
    net = Sums(reduce, *[make() for make in makers])
    x = torch.randn(5, 6)
    check(net, x, net.makers)


def test_norms_and_pools_keep_zeros_zero():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(10)
    conv = nn.Sequential(nn.Conv2d(3, 10, 3), norm, nn.ReLU(), nn.MaxPool2d(2))
    norm.running_mean.uniform_(-1, 1)
    net = nn.Sequential(conv, Pixels(), nn.Flatten(), nn.Linear(4, 3))
    check(net, torch.randn(5, 3, 6, 6), [norm])


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm, lambda width: PlainNorm(width, 1e-5)])
def test_a_norm_makes_what_comes_after_it(norm):
    torch.manual_seed(0)
    net = Sums(lambda m, x: length(m[1](m[0](x))), linear(), norm(10))
    space = find_space(net, torch.randn(5, 6))
    assert [group.size for group in space.groups] == [10]
    assert space.proof_error < 1e-10


class Pixels(nn.Module):
    """The length of every pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return length(x)


def check(net: nn.Module, x: Tensor, makers) -> None:
    """Cut some features, and compare with the network in which their rows are zero."""
    net = net.eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1)
    space = find_space(net, x)
    assert [group.size for group in space.groups] == [10], space.excluded
    assert space.proof_error < 1e-12
    mask = torch.ones(10)
    mask[GONE] = 0
    small = cut(net, space, space.architecture(mask))
    names = [name for name, module in net.named_modules() if any(module is maker for maker in makers)]
    by_hand = copy.deepcopy(net)
    with torch.no_grad():
        for name in names:
            by_hand.get_submodule(name).weight[GONE] = 0
            by_hand.get_submodule(name).bias[GONE] = 0
        torch.testing.assert_close(small(x), by_hand(x))
        torch.testing.assert_close(small(x[:3]), by_hand(x[:3]))
    assert all(len(small.get_submodule(name).weight) == 6 for name in names)


@pytest.mark.parametrize("activation", [torch.sigmoid, torch.exp, lambda x: x + 1, lambda x: x.clamp_min(0.1)])
def test_features_that_are_not_zero_without_their_layer_are_left_out(activation):
    net = Sums(lambda m, x: length(activation(m[0](x))), linear())
    with pytest.raises(ValueError, match="linalg_vector_norm runs over it"):
        Supernet(net, torch.randn(5, 6))
    assert not find_space(net, torch.randn(5, 6)).groups


class HeadsInBatch(nn.Module):
    """Attention as Set Transformers have it."""

    def __init__(self, width: int = 12, heads: int = 3):
        super().__init__()
        self.width, self.heads = width, heads
        self.query, self.key, self.value = (nn.Linear(5, width) for _ in range(3))
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        size = self.width // self.heads
        q, k, v = (torch.cat(layer(x).split(size, 2), 0) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(q @ k.transpose(1, 2) / self.width**0.5, -1)
        return self.out(torch.cat((weights @ v).split(len(x), 0), 2))


def test_heads_that_lie_along_the_batch_are_cut_inside():
    torch.manual_seed(0)
    net, x = HeadsInBatch().eval(), torch.randn(2, 7, 5)
    space = find_space(net, x)
    assert sorted(group.size for group in space.groups) == [4, 4]
    mask = torch.ones(8)
    mask[[1, 2, 7]] = 0  # of queries and keys, and of values, whichever comes first
    small = cut(net, space, space.architecture(mask))
    first_is_value = small.value.out_features == 6
    keys, values = (mask[4:], mask[:4]) if first_is_value else (mask[:4], mask[4:])
    by_hand = copy.deepcopy(net)
    with torch.no_grad():
        for layer, kept in ((by_hand.query, keys), (by_hand.key, keys), (by_hand.value, values)):
            layer.weight[kept.repeat(3) == 0] = 0
            layer.bias[kept.repeat(3) == 0] = 0
        for batch in (x, torch.randn(3, 4, 5)):
            torch.testing.assert_close(small(batch), by_hand(batch))


@pytest.mark.parametrize("norm", [spectral_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("kind", ["linear", "conv", "transposed"])
def test_under_spectral_norm_the_singular_value_is_that_of_what_is_left(norm, kind):
    torch.manual_seed(0)
    if kind == "linear":
        layers, x = (nn.Linear(4, 8), norm(nn.Linear(8, 6)), nn.Linear(6, 2)), torch.randn(3, 4)
    else:
        middle = nn.Conv2d(8, 6, 3) if kind == "conv" else nn.ConvTranspose2d(8, 6, 3)
        layers, x = (nn.Conv2d(4, 8, 1), norm(middle), nn.Conv2d(6, 2, 1)), torch.randn(3, 4, 5, 5)
    net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    net.train()(x)
    net.eval()
    space = find_space(net, x)
    assert [(group.name, group.size) for group in space.groups] == [("0", 8), ("2", 6)], space.excluded
    mask = torch.ones(14)
    mask[[1, 2, 5, 8, 10]] = 0
    small = cut(net, space, space.architecture(mask))
    by_hand = copy.deepcopy(net)
    original = next(value for name, value in by_hand[2].named_parameters() if "orig" in name)
    ins, rows = ([1, 2, 5], [0, 2])
    with torch.no_grad():
        for dim, gone in ((0, ins if kind == "transposed" else rows), (1, rows if kind == "transposed" else ins)):
            original.movedim(dim, 0)[gone] = 0
        by_hand[4].weight[:, rows] = 0
        torch.testing.assert_close(small(x), by_hand(x))
    small.train()(x).square().mean().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


class Frequencies(nn.Module):
    """Complex weights of a few frequencies, written into a spectrum of zeros."""

    def __init__(self, width: int = 10):
        super().__init__()
        self.width = width
        self.first, self.last = nn.Conv1d(3, width, 1), nn.Conv1d(width, 2, 1)
        self.weights = nn.Parameter(torch.randn(width, width, 4, dtype=torch.cfloat) / width)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(self.first(x))
        out = torch.zeros(len(x), self.width, spectrum.size(-1), dtype=spectrum.dtype)
        out[:, :, :4] = torch.einsum("bix,iox->box", spectrum[:, :, :4], self.weights)
        return self.last(torch.fft.irfft(out, n=x.size(-1)))


def test_complex_weights_are_cut():
    torch.manual_seed(0)
    net, x = Frequencies().eval(), torch.randn(2, 3, 12)
    space = find_space(net, x)
    assert sorted((group.name, group.size) for group in space.groups) == [("first", 10), ("weights", 10)]
    mask = torch.ones(20)
    mask[[1, 2, 13]] = 0
    small = cut(net, space, space.architecture(mask))
    assert small.weights.shape == (8, 9, 4)
    by_hand = copy.deepcopy(net)
    with torch.no_grad():
        by_hand.weights[[1, 2]] = 0
        by_hand.last.weight[:, 3] = 0
        torch.testing.assert_close(small(x), by_hand(x))


class OwnKernels(nn.Module):
    """A kernel for every sample, mixed of a few or scaled by a style, as one convolution of as many groups."""

    def __init__(self, mixed: bool):
        super().__init__()
        self.mixed, self.outputs = mixed, 8
        self.first, self.last = nn.Conv2d(3, 10, 1), nn.Conv2d(8, 2, 1)
        self.style = nn.Linear(10, 4 if mixed else 10)
        self.weight = nn.Parameter(torch.randn(4 if mixed else 1, 8, 10, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        b, c, h, w = x.shape
        style = self.style(x.mean((2, 3)))
        if self.mixed:
            weight = style.softmax(-1) @ self.weight.view(4, -1)
        else:
            weight = self.weight * style.view(b, 1, c, 1, 1)
            weight = weight * weight.square().sum((2, 3, 4), keepdim=True).rsqrt()
        weight = weight.view(b * self.outputs, c, 3, 3)
        out = functional.conv2d(x.view(1, b * c, h, w), weight, padding=1, groups=b)
        return self.last(out.view(b, self.outputs, h, w))


@pytest.mark.parametrize("mixed", [True, False])
def test_kernels_of_every_sample_are_cut_whatever_the_number_of_samples(mixed):
    torch.manual_seed(0)
    net, x = OwnKernels(mixed).eval(), torch.randn(3, 3, 5, 5)
    space = find_space(net, x)
    assert sorted(group.size for group in space.groups) == [8, 10]
    mask = torch.ones(18)
    first = 8 if space.groups[0].size == 8 else 0  # where the inputs of the kernels begin
    mask[first + torch.tensor([0, 4])] = 0
    mask[(10 if first == 0 else 0) + torch.tensor([2, 3, 7])] = 0
    small = cut(net, space, space.architecture(mask))
    assert small.weight.shape[1:3] == (5, 8)
    by_hand = copy.deepcopy(net)
    with torch.no_grad():
        by_hand.weight[:, :, [0, 4]] = 0
        by_hand.style.weight[:, [0, 4]] = 0
        by_hand.last.weight[:, [2, 3, 7]] = 0
        for samples in (1, 2, 3):
            torch.testing.assert_close(small(x[:samples]), by_hand(x[:samples]))


class PlainNorm(nn.Module):
    """Keeps no number to add to the mean square: it stands in its code."""

    def __init__(self, width: int, number: float):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)
        self.add = lambda mean: mean + number

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(self.add(x.pow(2).mean(-1, keepdim=True))) * self.weight


@pytest.mark.parametrize("number", [1e-5, 1e-6, 1e-3])
def test_numbers_in_the_code_of_norms_are_found(number):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 10), PlainNorm(10, number), nn.Linear(10, 3)).eval()
    x = torch.randn(4, 6) * 0.01
    nn.init.zeros_(net[0].bias)
    space = find_space(net, x)
    assert [(group.name, group.size) for group in space.groups] == [("0", 10)], space.excluded
    mask = torch.ones(10)
    mask[GONE] = 0
    small = cut(net, space, space.architecture(mask))
    kept = mask.bool()
    with torch.no_grad():
        features = net[0](x)[:, kept]
        features = features / (features.square().mean(1, keepdim=True) + number).sqrt() * net[1].weight[kept]
        expected = functional.linear(features, net[2].weight[:, kept], net[2].bias)
        torch.testing.assert_close(small(x), expected)
