"""What makes up for a cut, against numpy's least squares and formulas written out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import weight_norm

from dms_bench.scaling import Architecture, SearchSpace, apply_structure, cut, find_space
from dms_bench.scaling.cut.surgery import Surgery
from dms_bench.scaling.repair import fit, normal
from dms_bench.scaling.repair.biases import shift_biases
from dms_bench.scaling.repair.calls import order_of, recorded
from dms_bench.scaling.repair.consumers import Consumer, consumers_of
from dms_bench.scaling.repair.fit import Fit, fits
from dms_bench.scaling.repair.normal import NormalEquations
from dms_bench.scaling.repair.rows import output_rows, portions, rows_of
from tests.unit.scaling.test_heads_and_dims import Attention, Network

CPU = torch.device("cpu")
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 5), (3, 6)),
    "linear, no bias, of positions": (lambda: nn.Linear(6, 5, bias=False), (2, 4, 6)),
    "plain": (lambda: nn.Conv2d(6, 5, 1), (3, 6, 4, 5)),
    "stride, padding, dilation": (
        lambda: nn.Conv2d(6, 5, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 3), bias=False),
        (3, 6, 7, 6),
    ),
    "same": (lambda: nn.Conv2d(6, 5, (3, 4), padding="same", dilation=2), (2, 6, 7, 8)),
    "reflected": (lambda: nn.Conv2d(6, 5, 3, padding=(1, 2), padding_mode="reflect"), (2, 6, 5, 6)),
    "one dimension": (lambda: nn.Conv1d(6, 5, 4, stride=3, padding=2), (3, 6, 11)),
    "three dimensions": (lambda: nn.Conv3d(6, 5, (2, 3, 1), stride=(1, 2, 1), padding=(1, 0, 2)), (2, 6, 3, 5, 2)),
}


def made(kind: str) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    return make(), torch.randn(shape)


@pytest.mark.parametrize("kind", LAYERS)
def test_rows_times_weight_are_what_torch_computes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = made(kind)
    product = rows_of(layer, x) @ layer.weight.flatten(1).T + (0 if layer.bias is None else layer.bias)
    torch.testing.assert_close(product, output_rows(layer, layer(x)))
    monkeypatch.setattr("dms_bench.scaling.repair.rows._AT_ONCE", 1)
    parts = list(portions(layer, x))
    assert len(parts) > 1
    assert torch.equal(torch.cat(parts), rows_of(layer, x))


def test_a_sample_without_a_batch_is_one() -> None:
    layer, x = made("same")
    assert torch.equal(rows_of(layer, x[0]), rows_of(layer, x[:1]))
    assert torch.equal(output_rows(layer, layer(x)[0]), output_rows(layer, layer(x)[:1]))


def naive_fit(x: np.ndarray, y: np.ndarray, old: np.ndarray, ridge: float, biased: bool) -> tuple[Any, Any]:
    """Least squares with further rows that ask for the old weights: [x 1] [W b]^T = y, sqrt(r) [W 0] = sqrt(r) W0."""
    features = x.shape[1]
    spread = x - x.mean(0) if biased else x
    weight = np.sqrt(ridge * (spread**2).sum() / features)
    left = np.hstack([x, np.ones((len(x), 1))]) if biased else x
    held = weight * np.eye(features, left.shape[1])
    solution = np.linalg.lstsq(np.vstack([left, held]), np.vstack([y, weight * old.T]), rcond=None)[0]
    return solution[:features].T, solution[features] if biased else None


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [4, 50])
def test_normal_equations_are_numpys_least_squares(rows: int, biased: bool) -> None:
    rng = np.random.default_rng(0)
    x, y, old = rng.normal(1, 2, (rows, 7)), rng.normal(3, 1, (rows, 3)), rng.normal(size=(3, 7))
    equations = NormalEquations(7, 3, CPU, biased=biased)
    for part in np.array_split(np.arange(rows), 3):
        equations.add(torch.tensor(x[part]), torch.tensor(y[part]))
    weight, bias = equations.solve(torch.tensor(old))
    expected, expected_bias = naive_fit(x, y, old, normal.RIDGE, biased)
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-7, atol=1e-9)
    assert (bias is None) == (not biased)
    if bias is not None:
        np.testing.assert_allclose(bias.numpy(), expected_bias, rtol=1e-7, atol=1e-9)
    left = y - x @ expected.T - (expected_bias if biased else 0)
    assert equations.error(weight, bias) == pytest.approx((left**2).sum() / (y**2).sum(), rel=1e-6)


def test_the_ridge_does_not_depend_on_the_unit_of_the_features() -> None:
    torch.manual_seed(0)
    x, y, old = torch.randn(20, 4), torch.randn(20, 2), torch.randn(2, 4)
    found = []
    for unit in (1.0, 1000.0):
        equations = NormalEquations(4, 2, CPU, biased=True)
        equations.add(unit * x, y)
        found.append(unit * equations.solve(old.double() / unit)[0])
    torch.testing.assert_close(found[0], found[1])


def test_features_that_never_vary_keep_their_weights() -> None:
    equations = NormalEquations(3, 2, CPU, biased=True)
    equations.add(torch.zeros(5, 3), torch.tensor([[1.0, 2.0]]).expand(5, 2))
    old = torch.randn(2, 3).double()
    weight, bias = equations.solve(old)
    assert torch.equal(weight, old)
    assert bias is not None
    assert bias.tolist() == [1, 2]


def keeping(space: SearchSpace, **kept: Sequence[int]) -> Architecture:
    """Keep some elements of groups, named with `__` for dots, and all of the others."""
    names = {name.replace("__", "."): list(indices) for name, indices in kept.items()}
    mask = space.full()
    for name, start, size in zip(space.names, space.units.starts, space.units.sizes, strict=True):
        for index in set(range(size)) - set(names.get(name, range(size))):
            mask[start + index] = 0
    return space.architecture(mask)


def repaired(
    model: nn.Module, space: SearchSpace, architecture: Architecture, inputs: Sequence[Tensor], kind: str = "fit"
) -> tuple[nn.Module, list[Fit], dict[str, str]]:
    """Cut and repair on some inputs; everything that the stage of a trial does, apart from its bookkeeping."""
    network = cut(model, space, architecture)
    consumers, left_out = consumers_of(model, space, architecture)
    calls = recorded(model, lambda: [model(x) for x in inputs])
    times = order_of(network, consumers, calls[0], CPU)
    called = [consumers[name] for name in times]
    if kind == "bias":
        return network, shift_biases(network, model, called, calls, CPU), left_out
    return network, list(fits(network, model, called, times, calls, CPU)), left_out


def convolutions(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    second = nn.Conv2d(6, 5, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 3), bias=bias)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), second, nn.ReLU(inplace=True)).eval()


def naive_patches(x: np.ndarray) -> np.ndarray:
    """Return the patches of that second convolution, place by place."""
    samples, channels, height, width = x.shape
    padded = np.zeros((samples, channels, height + 2, width + 4))
    padded[:, :, 1:-1, 2:-2] = x
    patches = []
    for sample in range(samples):
        for top, left in itertools.product(range(0, height, 2), range(width + 4 - 3)):
            patch = [
                [[padded[sample, c, top + i, left + 3 * j] for j in range(2)] for i in range(3)]
                for c in range(channels)
            ]
            patches.append(np.array(patch).ravel())
    return np.array(patches)


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_is_refitted_as_by_numpy_on_patches_cut_by_hand(bias: bool) -> None:
    model = convolutions(bias)
    inputs = list(torch.randn(3, 2, 3, 7, 8))
    space = find_space(model, inputs[0])
    architecture = keeping(space, **{"0": (0, 2, 3, 5)})
    network, (done,), left_out = repaired(model, space, architecture, inputs)
    assert not left_out
    assert done.name == "2"
    assert 0 < done.after < done.before
    with torch.no_grad():
        hidden = model[1](model[0](torch.cat(inputs)))
        targets = output_rows(model[2], model[2](hidden)).double().numpy()
    x = naive_patches(hidden.double().numpy()[:, [0, 2, 3, 5]])
    old = model[2].weight.detach().double()[:, [0, 2, 3, 5]].flatten(1).numpy()
    expected, expected_bias = naive_fit(x, targets, old, normal.RIDGE, bias)
    np.testing.assert_allclose(network[2].weight.detach().flatten(1).numpy(), expected, rtol=1e-4, atol=1e-5)
    if bias:
        np.testing.assert_allclose(network[2].bias.detach().numpy(), expected_bias, rtol=1e-4, atol=1e-5)


def test_what_is_a_combination_of_what_stays_is_made_up_for_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve features that are combinations of four, of which five are kept: the whole function, on any input."""
    monkeypatch.setattr(normal, "RIDGE", 1e-12)
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(4, 12), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5)).eval()
    space = find_space(linear, torch.randn(2, 4), exclude=("1",))
    network, done, _ = repaired(linear, space, keeping(space, **{"0": (1, 4, 6, 7, 11)}), [torch.randn(64, 4)])
    assert [fitted.name for fitted in done] == ["1"]
    unseen = torch.randn(32, 4)
    torch.testing.assert_close(network(unseen), linear(unseen), rtol=1e-4, atol=1e-5)

    spatial = nn.Sequential(nn.Conv2d(2, 8, 1, bias=False), nn.Conv2d(8, 5, 3, padding=1, stride=2, bias=False)).eval()
    space = find_space(spatial, torch.randn(2, 2, 6, 6))
    network, _, _ = repaired(spatial, space, keeping(space, **{"0": (3, 5)}), [torch.randn(8, 2, 6, 6)])
    unseen = torch.randn(3, 2, 9, 9)
    torch.testing.assert_close(network(unseen), spatial(unseen), rtol=1e-4, atol=1e-5)


def test_queries_of_smaller_heads_keep_their_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that cost nothing to lose are lost beside sizes of heads: the same network as without losing them."""
    monkeypatch.setattr(normal, "RIDGE", 1e-12)
    torch.manual_seed(0)
    model, x = Network(Attention()).eval(), torch.randn(16, 5, 4)
    space = find_space(model, x, attention="both", exclude=("attn.proj",))
    sizes: dict[str, Sequence[int]] = {"attn__qkv__qk_dims": (0, 3, 4)}
    expected = cut(model, space, keeping(space, **sizes))
    architecture = keeping(space, stem=(0, 2, 3, 7, 9), **sizes)
    network, done, _ = repaired(model, space, architecture, [x])
    assert [fitted.name for fitted in done] == ["attn.qkv"]
    unseen = torch.randn(3, 5, 4)
    torch.testing.assert_close(network(unseen), expected(unseen), rtol=1e-3, atol=1e-4)


class Stream(nn.Module):
    """Two layers behind one that is cut; the second gets what the first makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + torch.relu(self.first(self.norm(x)))
        return self.head(self.norm(x + torch.relu(self.second(self.norm(x)))))


def test_layers_are_fitted_to_what_they_get_in_the_cut_network() -> None:
    torch.manual_seed(0)
    model, x = Stream().eval(), torch.randn(200, 4)
    space = find_space(model, x[:2])
    (stream,) = (group.name for group in space.groups if group.name.endswith("stream"))
    architecture = keeping(space, **{stream: range(0, 16, 2)})
    network, done, _ = repaired(model, space, architecture, [x])
    assert [fitted.name for fitted in done] == ["first", "second", "head"]
    with torch.no_grad():
        before = cut(model, space, architecture)(x)
        seen: dict[str, Tensor] = {}
        network.head.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
        after = network(x)
        targets = model(x)
    weight, bias = naive_fit(
        seen["x"].double().numpy(),
        targets.double().numpy(),
        model.head.weight.detach()[:, ::2].double().numpy(),
        normal.RIDGE,
        True,
    )
    np.testing.assert_allclose(network.head.weight.detach().numpy(), weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network.head.bias.detach().numpy(), bias, rtol=1e-4, atol=1e-5)
    assert float((after - targets).square().mean()) < 0.5 * float((before - targets).square().mean())


@pytest.mark.parametrize("bias", [True, False])
def test_biases_take_up_the_mean_of_what_is_lost(bias: bool) -> None:
    model = convolutions(bias)
    inputs = list(torch.randn(3, 2, 3, 7, 8))
    space = find_space(model, inputs[0])
    network, (done,), _ = repaired(model, space, keeping(space, **{"0": (0, 2, 3, 5)}), inputs, "bias")
    assert torch.equal(network[2].weight, model[2].weight[:, [0, 2, 3, 5]])
    if not bias:
        assert done.left_out == "a convolution without a bias"
        return
    with torch.no_grad():
        lost = model[1](model[0](torch.cat(inputs)))[:, [1, 4]]
        made = functional.conv2d(lost, model[2].weight[:, [1, 4]], stride=(2, 1), padding=(1, 2), dilation=(1, 3))
    torch.testing.assert_close(network[2].bias, model[2].bias + made.mean((0, 2, 3)))
    assert not done.gave_bias


def test_a_linear_layer_without_a_bias_gets_one_that_a_record_can_build() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5, bias=False)).eval()
    x = torch.randn(50, 4)
    space = find_space(model, x[:2])
    network, (done,), _ = repaired(model, space, keeping(space, **{"0": (0, 1, 5)}), [x[:30], x[30:]], "bias")
    assert done.gave_bias
    lost = [2, 3, 4, 6, 7]
    with torch.no_grad():
        mean = model[1](model[0](x))[:, lost].mean(0)
    torch.testing.assert_close(network[2].bias, (model[2].weight[:, lost] * mean).sum(1))
    apply_structure(model, Surgery(biases=("2",)))
    assert model[2].bias.tolist() == [0] * 5


class Odd(nn.Module):
    """Layers of every kind that is left alone, behind one that is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.plain, self.big = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 3, 5, padding=2)
        self.one, self.other = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 3, 1)
        self.other.weight = self.one.weight
        self.transposed = nn.ConvTranspose2d(8, 3, 1)
        self.normed = weight_norm(nn.Conv2d(8, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        called = (self.plain, self.big, self.one, self.other, self.transposed, self.normed)
        return sum(layer(x) for layer in called)  # type: ignore[return-value]


def test_layers_that_are_left_as_they_were_are_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "MOST_FEATURES", 99)
    torch.manual_seed(0)
    model, x = Odd().eval(), torch.randn(4, 3, 6, 6)
    space = find_space(model, x[:2])
    architecture = keeping(space, stem=(0, 1, 2, 5))
    network, done, left_out = repaired(model, space, architecture, [x])
    assert {fitted.name: fitted.left_out for fitted in done} == {"plain": "", "big": "more than 99 inputs"}
    assert left_out == {
        "one": "its weight is shared with another layer",
        "other": "its weight is shared with another layer",
        "transposed": "neither a linear layer nor a convolution",
        "normed": "its weight is computed from others",
    }
    plain = cut(model, space, architecture).state_dict()
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, plain[name])}
    assert changed == {"plain.weight", "plain.bias"}


class Doubling(nn.Linear):
    """Looks like a linear layer, and is none."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("kind", ["fit", "bias"])
def test_a_layer_of_its_own_kind_is_found_out(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), Doubling(8, 5)).eval()
    whole, x = model, torch.randn(30, 4)
    consumer = Consumer("2", torch.tensor([True] * 6 + [False] * 2), torch.ones(5).bool(), torch.ones(5).double())
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Doubling(6, 5)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    calls = recorded(whole, lambda: whole(x))
    done = (
        list(fits(network, whole, [consumer], {"2": 1}, calls, CPU))
        if kind == "fit"
        else shift_biases(network, whole, [consumer], calls, CPU)
    )
    assert [fitted.left_out for fitted in done] == ["its output is not its weight times its input"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class Routed(nn.Module):
    """An expert that sees other samples once the network is another."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.expert = nn.Linear(4, width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.expert(x[x.sum(1) > 0])


def test_a_layer_that_sees_other_samples_in_the_cut_network_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    whole, network = Routed(8), Routed(6)
    consumer = Consumer("expert", torch.tensor([True] * 6 + [False] * 2), torch.ones(5).bool(), torch.ones(5).double())
    x = torch.randn(40, 4)
    calls = recorded(whole, lambda: whole(x))
    (done,) = fits(network, whole, [consumer], {"expert": 1}, calls, CPU)
    assert done.left_out == "called otherwise than in the whole network"


def test_a_layer_that_is_called_several_times_is_fitted_to_all_of_them() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(4, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(self.stem(x))
            return self.head(hidden).relu_() + self.head(3 * hidden)

    torch.manual_seed(0)
    model, x = Twice().eval(), torch.randn(60, 4)
    space = find_space(model, x[:2])
    network, (done,), _ = repaired(model, space, keeping(space, stem=(0, 2, 3, 6)), [x])
    with torch.no_grad():
        hidden = torch.relu(model.stem(x))
        both = torch.cat([hidden, 3 * hidden])
        targets = model.head(both).double().numpy()
    old = model.head.weight.detach()[:, [0, 2, 3, 6]].double().numpy()
    expected, _ = naive_fit(both[:, [0, 2, 3, 6]].double().numpy(), targets, old, normal.RIDGE, True)
    np.testing.assert_allclose(network.head.weight.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert done.after < done.before
