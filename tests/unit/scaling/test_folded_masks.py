"""Masks that are folded into the norm before their layers: found only where that is exact."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dms_bench.scaling import Supernet, find_space
from dms_bench.scaling.masks.norm_hook import MaskedNorm
from dms_bench.scaling.masks.weights import ScaleWeight


class Branched(nn.Module):
    """A stream of 8 features, a norm, and what `use` makes of its output."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.use = use
        self.stem, self.norm = nn.Linear(4, 8), nn.LayerNorm(8)
        self.one, self.two, self.head = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.stem(x)
        y = self.norm(stream)
        if self.use == "two layers":
            return self.head(self.one(y) * self.two(y))
        if self.use == "a layer and an activation":
            return self.head(self.one(y) + self.two(y.tanh()))
        if self.use == "a layer and the stream":
            return self.head(self.one(y) + self.two(stream + y))
        if self.use == "a view":
            return self.head(self.one(y[:, :1]).squeeze(1))
        y = self.norm(self.stem(-x)) + y
        return self.head(self.one(y))


CASES = {
    "two layers": ("one", "two"),
    "a layer and an activation": (),
    "a layer and the stream": (),
    "a view": (),
    "the norm twice": (),
}


@pytest.mark.parametrize("use", CASES)
def test_masks_are_folded_only_where_masked_layers_alone_read_a_norm(use):
    torch.manual_seed(0)
    model, shape = Branched(use), (2, 3, 4) if use == "a view" else (2, 4)
    space = find_space(model, torch.randn(shape))
    assert space.folded_masks == ({"norm": CASES[use]} if CASES[use] else {})
    assert space.proof_error < 1e-12


def test_a_folded_mask_equals_masks_on_the_layers_inputs():
    torch.manual_seed(0)
    model = Branched("two layers").double()
    x = torch.randn(5, 4).double()
    net = Supernet(model, find_space(model, x)).double()
    mask = torch.rand(net.space.units.total).double()
    ((own, _),) = (norm.elements for norm in net.space.norms)
    stream, hidden = mask[own], mask[net.space.outer_elements["head.weight", 1]]
    kept = stream / stream.sum()
    h = model.stem(x)
    mean = (h * kept).sum(1, keepdim=True)
    deviation = ((h - mean).square() * kept).sum(1, keepdim=True).add(model.norm.eps).sqrt()
    y = ((h - mean) / deviation * model.norm.weight + model.norm.bias) * stream
    expected = nn.functional.linear(model.one(y) * model.two(y) * hidden, model.head.weight, model.head.bias)
    with net.fixed(mask):
        torch.testing.assert_close(net(x), expected)
    hooks = [hook for layer in (model.one, model.two) for hook in layer._forward_pre_hooks.values()]
    assert not any(isinstance(hook, ScaleWeight) for hook in hooks)  # no copy of their weights is made
    assert isinstance(model.norm.__dict__["forward"], MaskedNorm)


def test_a_space_without_the_norms_features_scales_nothing_there():
    model = Branched("two layers")
    space = find_space(model, torch.randn(2, 4), exclude=["stem"])
    x = torch.randn(3, 4)
    net = Supernet(model, space).eval()
    with net.fixed(space.full()):
        torch.testing.assert_close(net(x), model(x))
