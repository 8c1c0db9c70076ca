"""Layers that compute their weight: weight norm is cut as the plain weight is, spectral norm stays."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, weight_norm

from dms_bench.scaling import apply_structure, cut, find_space, plan_surgery
from dms_bench.scaling.cut.magnitudes import cut_weight_norm
from dms_bench.scaling.masks.hooks import MaskedForward
from dms_bench.scaling.modules.reparametrised import copy_of, layer_of
from dms_bench.trial.space_file import from_bytes, to_bytes
from tests.unit.scaling.agreement import assert_masked_is_cut

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
NORMS = {"hook": weight_norm, "parametrization": parametrizations.weight_norm}


class Residual(nn.Module):
    """A block that ends in a layer with weight norm."""

    def __init__(self, norm, channels: int) -> None:
        super().__init__()
        self.grow = norm(nn.Conv1d(channels, 6, 3, padding=1))
        self.shrink = norm(nn.Conv1d(6, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shrink(self.grow(x).relu())


class Vocoder(nn.Module):
    """The layers of vocoders: up and down, groups few and many, a norm per position of the kernel, a linear layer."""

    def __init__(self, norm) -> None:
        super().__init__()
        self.first = norm(nn.Conv1d(2, 8, 3, padding=1))
        self.blocks = nn.Sequential(Residual(norm, 8), Residual(norm, 8))
        self.middle = norm(nn.Conv1d(8, 10, 1))
        self.up = norm(nn.ConvTranspose1d(10, 16, 4, 2, 1))
        self.few = norm(nn.Conv1d(16, 12, 3, padding=1, groups=2))
        self.many = norm(nn.Conv1d(12, 12, 3, padding=1, groups=12), dim=2)
        self.last = norm(nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.blocks(self.first(x).relu())).relu()
        return self.last(self.many(self.few(self.up(x).relu()).relu()).relu().mean(2))


def plain_of(model: nn.Module) -> nn.Module:
    """Return the same network, whose layers have the weights that theirs compute."""
    plain = Vocoder(lambda layer, **_: layer)
    for name, module in plain.named_modules():
        for leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(getattr(model.get_submodule(name), leaf).detach().clone())
    return plain


@pytest.mark.parametrize("kind", NORMS)
def test_weight_norm_is_searched_and_cut_as_the_plain_weights_are(kind):
    torch.manual_seed(0)
    model, x = Vocoder(NORMS[kind]), torch.randn(2, 2, 12)
    model(x)  # with gradients: hooks leave what they computed on the layers
    plain = plain_of(model)
    space, reference = find_space(model, x), find_space(plain, x)
    assert [(group.name, group.size) for group in space.groups] == [(g.name, g.size) for g in reference.groups]
    assert [stage.blocks for stage in space.stages] == [stage.blocks for stage in reference.stages]
    assert len(space.groups) == 6
    assert from_bytes(to_bytes(space, "key"), "key").normed == space.normed
    mask = space.full()
    for start, size in zip(space.units.starts, space.units.sizes, strict=True):
        mask[start : start + size // 2] = 0
    model(x)
    small = cut(model, space, space.architecture(mask))
    expected = cut(plain, reference, reference.architecture(mask))
    torch.testing.assert_close(small(x), expected(x))
    for name, layer in expected.named_modules():  # channels and groups are put right
        integers = {key: value for key, value in vars(layer).items() if type(value) is int}
        assert integers.items() <= vars(small.get_submodule(name)).items()
    small(x).square().mean().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in small.parameters())
    again = Vocoder(NORMS[kind])
    apply_structure(again, plan_surgery(model, space, space.architecture(mask)))
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again(x), small(x))


@pytest.mark.parametrize("kind", NORMS)
def test_masks_of_weight_norm_are_cuts(kind):
    assert_masked_is_cut(Vocoder(NORMS[kind]), torch.randn(2, 2, 12))


def test_soft_masks_and_their_gradients_are_those_of_the_plain_weights():
    torch.manual_seed(0)
    model, x = Vocoder(weight_norm).eval(), torch.randn(2, 2, 12)
    plain, results = plain_of(model).eval(), []
    for network in (model, plain):
        space = find_space(network, x)
        mask = torch.linspace(0.2, 0.9, space.units.total, requires_grad=True)
        with MaskedForward(network, space).using(mask):
            outputs = network(x=x)  # by name, too
        outputs.square().mean().backward()
        results.append((outputs, mask.grad))
    torch.testing.assert_close(*results)


def test_magnitudes_keep_the_weights_that_are_left():
    g, v = torch.rand(5, 1, 1) + 0.5, torch.randn(5, 4, 3)
    v[1, :2] = 0  # nothing of it is left
    whole = torch._weight_norm(v, g, 0)
    rows, inputs = torch.tensor([True, True, False, True, True]), torch.tensor([True, True, False, False])
    magnitude, direction = cut_weight_norm(g, v, 0, {0: rows, 1: inputs})
    torch.testing.assert_close(torch._weight_norm(direction, magnitude, 0), whole[rows][:, inputs])
    untouched = cut_weight_norm(g, v, 0, {0: rows})
    torch.testing.assert_close(untouched, (g[rows], v[rows]), rtol=0, atol=0)


def test_blocks_that_end_in_weight_norm_are_blended_and_others_keep_their_tails():
    blocks = (Residual(weight_norm, 8), Residual(lambda layer: layer, 8))
    model = nn.Sequential(nn.Conv1d(2, 8, 1), nn.Sequential(*blocks), nn.Conv1d(8, 2, 1))
    space = find_space(model, torch.randn(2, 2, 12))
    assert space.blocks == ("1.0", "1.1")
    assert space.tails == {"1.1": ("1.1.shrink",)}


@pytest.mark.parametrize("factor", [None, 2.0])
def test_a_weight_under_weight_norm_is_read_outside_of_its_layer_but_not_one_of_what_is_no_parameter(factor):
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(4, 8), nn.Linear(6, 2)
            self.normed = weight_norm(nn.Linear(8, 6))

        def forward(self, x: Tensor) -> Tensor:
            v, g = self.normed.weight_v, self.normed.weight_g
            weight = torch._weight_norm(v if factor is None else v * factor, g, 0)
            return self.head(functional.linear(self.first(x).relu(), weight).relu())

    net, x = Shared(), torch.randn(3, 4)
    space = find_space(net, x)
    if factor is not None:
        assert [group.name for group in space.groups] == ["normed"]
        assert "of what is no parameter" in space.excluded["first"]
        return
    assert [group.size for group in space.groups] == [8, 6]  # what the first makes is zero instead
    mask = torch.ones(14)
    mask[[1, 4, 9]] = 0
    small = cut(net, space, space.architecture(mask))
    by_hand = copy_of(net)
    with torch.no_grad():
        by_hand.first.weight[[1, 4]], by_hand.first.bias[[1, 4]] = 0, 0
        by_hand.head.weight[:, 1] = 0
        torch.testing.assert_close(small(x), by_hand(x))


def test_parameters_of_parametrizations_belong_to_their_layer():
    assert layer_of("a.b.parametrizations.weight.original1") == "a.b"
    assert layer_of("parametrizations.weight.original0") == ""
    assert layer_of("a.b.weight_v") == "a.b"
    copied = copy.deepcopy(parametrizations.weight_norm(nn.Linear(2, 3)))
    assert layer_of(next(name for name, _ in copied.named_parameters() if "orig" in name)) == ""
