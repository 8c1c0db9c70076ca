"""Masks are float32 also where a network is bfloat16: what comes out has the network's own precision."""

import pytest
import torch
from torch import nn

from dms_bench.scaling import find_space
from dms_bench.scaling.masks.hooks import MaskedForward
from tests.unit.scaling.odd_networks import Block, Residual


class Scaled(nn.Module):
    """A root mean square norm as language models have it."""

    def __init__(self, size):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(size)), 1e-6

    def forward(self, x):
        kind, x = x.dtype, x.float()
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * x.to(kind)


def tokens(norm):
    layer = lambda: nn.Sequential(norm(16), nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))  # noqa: E731
    return nn.Sequential(nn.Linear(8, 16), Added(layer()), Added(layer()), norm(16), nn.Linear(16, 4))


class Added(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


CASES = {
    "layer": (lambda: tokens(nn.LayerNorm), (2, 5, 8)),
    "rms": (lambda: tokens(Scaled), (2, 5, 8)),
    "torch rms": (lambda: tokens(nn.RMSNorm), (2, 5, 8)),
    "group": (
        lambda: nn.Sequential(nn.Conv2d(3, 12, 3), nn.GroupNorm(1, 12), nn.Conv2d(12, 8, 3), nn.GroupNorm(1, 8)),
        (2, 3, 8, 8),
    ),
    "tails": (lambda: Residual([Block() for _ in range(3)]), (2, 3, 8, 8)),
    "blends": (lambda: Residual([Block(post=nn.GELU()) for _ in range(3)]), (2, 3, 8, 8)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_float32_masks_on_half_precision(name, kind):
    make, shape = CASES[name]
    torch.manual_seed(0)
    model, example = make().eval(), torch.randn(shape)
    space = find_space(model, example)
    assert space.groups
    mask = torch.rand(space.units.total)
    with torch.no_grad(), MaskedForward(model, space).using(mask):
        expected = model(example)
    torch.manual_seed(0)
    model = make().to(kind).eval()
    mask = mask.requires_grad_()
    seen = []
    for module in model.modules():
        module.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    with MaskedForward(model, space).using(mask):
        found = model(example.to(kind))
    assert set(seen) == {kind}
    assert found.dtype == kind
    assert float(((found.float() - expected).norm() / expected.norm()).detach()) < 0.05
    found.float().square().mean().backward()
    assert mask.grad.dtype == torch.float32
    assert bool(mask.grad.isfinite().all())
    assert float(mask.grad.abs().sum()) > 0
