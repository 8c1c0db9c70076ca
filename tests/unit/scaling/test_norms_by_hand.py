"""Norms as repositories write them, with parameters of any name and form, held against a cut by hand."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from dms_bench.scaling import Supernet, cut, find_space
from dms_bench.scaling.modules.norm_kinds import recognise_norms


class Length(nn.Module):
    """RMS norm by way of the length of its input, times a number of the whole network's width (Wan, vit_pytorch)."""

    def __init__(self, width, shape=(), bias=False):
        super().__init__()
        self.scale, self.dim = width**0.5, 1 if shape else -1
        self.gamma = nn.Parameter(torch.ones(width, *shape))
        self.bias = nn.Parameter(torch.zeros(width, *shape)) if bias else 0.0

    def forward(self, x):
        return functional.normalize(x, dim=self.dim) * self.scale * self.gamma + self.bias


class ChannelNorm(nn.Module):
    """A layer norm over channels, as vit_pytorch writes it."""

    def __init__(self, width, shape=(1, 1)):
        super().__init__()
        self.eps = 1e-5
        self.g, self.b = (nn.Parameter(torch.full((1, width, *shape), value)) for value in (1.0, 0.0))

    def forward(self, x):
        variance, mean = torch.var(x, dim=1, unbiased=False, keepdim=True), torch.mean(x, dim=1, keepdim=True)
        return (x - mean) / (variance + self.eps).sqrt() * self.g + self.b


class Annotated(nn.Module):
    """Divides by the deviation and a number beside it, as the annotated transformer does."""

    def __init__(self, width):
        super().__init__()
        self.a_2, self.b_2, self.eps = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width)), 1e-6

    def forward(self, x):
        return self.a_2 * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + self.eps) + self.b_2


class BiasFreeNorm(nn.Module):
    """Divides by the deviation alone, and keeps no number (Restormer)."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5) * self.weight


class DeviationNorm(nn.Module):
    """Divides by the deviation and a number beside it, over channels (SepViT)."""

    def __init__(self, width):
        super().__init__()
        self.eps = 1e-5
        self.g, self.b = (nn.Parameter(torch.full((1, width, 1, 1), value)) for value in (1.0, 0.0))

    def forward(self, x):
        deviation = torch.var(x, dim=1, unbiased=False, keepdim=True).sqrt()
        return (x - torch.mean(x, dim=1, keepdim=True)) / (deviation + self.eps) * self.g + self.b


class GlobalNorm(nn.Module):
    """Normalises over channels and positions, as networks that separate sounds do."""

    def __init__(self, width, rank):
        super().__init__()
        self.over, self.eps = tuple(range(1, rank + 2)), 1e-5
        self.gamma, self.beta = (nn.Parameter(torch.full((width, *[1] * rank), value)) for value in (1.0, 0.0))

    def forward(self, x):
        mean = x.mean(self.over, keepdim=True)
        variance = (x - mean).pow(2).mean(self.over, keepdim=True)
        return self.gamma * (x - mean) / (variance + self.eps).sqrt() + self.beta


class UnitLengthNorm(nn.Module):
    """Has no parameters."""

    def forward(self, x):
        return functional.normalize(x, dim=-1)


class BareRMSNorm(nn.Module):
    """Has no parameters, and divides by what its input's size says."""

    def forward(self, x):
        return functional.normalize(x, dim=-1) * x.size(-1) ** 0.5


NORMS = {
    "length": (0, lambda width: Length(width), "length"),
    "length of channels": (2, lambda width: Length(width, (1, 1)), "length"),
    "length in three dimensions": (3, lambda width: Length(width, (1, 1, 1), bias=True), "length"),
    "channels": (2, lambda width: ChannelNorm(width), "layer"),
    "channels of sequences": (1, lambda width: ChannelNorm(width, (1,)), "layer"),
    "all of a sequence": (1, lambda width: GlobalNorm(width, 1), "group"),
    "all of a picture": (2, lambda width: GlobalNorm(width, 2), "group"),
    "deviation": (0, Annotated, "deviation"),
    "bias free": (0, BiasFreeNorm, "simple_biased"),
    "biased deviation": (2, DeviationNorm, "deviation_biased"),
    "unit length": (0, lambda width: UnitLengthNorm(), "length"),
    "bare rms": (0, lambda width: BareRMSNorm(), "mean_length"),
    "bare rms of torch": (0, lambda width: nn.RMSNorm(width, eps=1e-6, elementwise_affine=False), "rms"),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_written_by_hand_is_known_and_cut_exactly(name):
    rank, make, kind = NORMS[name]
    torch.manual_seed(0)
    layer = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank]
    sizes = (1,) if rank else ()
    model = nn.Sequential(layer(6, 16, *sizes), make(16), layer(16, 4, *sizes)).double().eval()
    with torch.no_grad():
        for parameter in model[1].parameters():
            parameter.normal_()
    assert [norm.kind for norm in recognise_norms(model).values()] == [kind]
    x = torch.randn(2, 6, *[3] * rank).double()
    space = find_space(model, x)
    assert [group.size for group in space.groups] == [16]
    assert space.proof_error < 1e-12
    mask = torch.ones(16)
    mask[[0, 5, 6, 7, 15]] = 0
    small = cut(model, space, space.architecture(mask))
    by_hand, kept = copy.deepcopy(model), mask.bool()
    for parameter in by_hand[1].parameters():
        parameter.data = parameter.data.flatten()[kept].view([11 if size > 1 else 1 for size in parameter.shape])
    if isinstance(by_hand[1], nn.RMSNorm):
        by_hand[1].normalized_shape = (11,)
    hidden = by_hand[1](by_hand[0](x)[:, kept])
    whole = torch.zeros(2, 16, *[3] * rank).double()
    whole[:, kept] = hidden
    torch.testing.assert_close(small(x), by_hand[2](whole))
    net = Supernet(model, space)
    with net._masked.using(mask.double()):
        torch.testing.assert_close(net.model(x), small(x))


@pytest.mark.parametrize("norm", [Length(6, bias=True), Annotated(6)])
def test_masks_reach_the_statistics_smoothly(norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), norm, nn.Linear(6, 3)).double().eval()
    x = torch.randn(3, 4).double()
    net = Supernet(model, find_space(model, x))
    mask = (torch.rand(6).double() / 2 + 0.5).requires_grad_()

    def masked(mask):
        with net._masked.using(mask):
            return net.model(x)

    assert torch.autograd.gradcheck(masked, mask)


def test_other_modules_of_one_number_per_feature_are_no_norms():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(8, 1, 1))

        def forward(self, x):
            return x * self.gamma

    class NormalisedByPosition(Scale):
        def forward(self, x):
            return functional.normalize(x, dim=2) * self.gamma

    assert recognise_norms(nn.Sequential(Scale(), NormalisedByPosition(), nn.PReLU(8), nn.Softmax(-1))) == {}
