"""Every score against the same thing written out in NumPy on a network of two layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.errors import UserError
from dms_bench.methods.sampling import proxies

SAMPLES, INPUTS, HIDDEN, CLASSES = 6, 4, 5, 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SAMPLES, INPUTS, generator=generator), torch.arange(SAMPLES) % CLASSES


def losses(model: nn.Module) -> Iterator[Tensor]:
    for seed in (0, 1):
        x, y = batch(seed)
        yield functional.cross_entropy(model(x), y)


def weights(model: nn.Sequential) -> tuple[np.ndarray, ...]:
    return tuple(parameter.detach().double().numpy() for parameter in model.parameters())


def gradients(model: nn.Sequential, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of both weights, by hand."""
    (w1, b1, w2, b2), (x, y) = weights(model), batch(seed)
    inputs, targets = x.double().numpy(), np.eye(CLASSES)[y.numpy()]
    before = inputs @ w1.T + b1
    hidden = np.maximum(before, 0)
    scores = np.exp(hidden @ w2.T + b2)
    error = (scores / scores.sum(1, keepdims=True) - targets) / SAMPLES
    back = (error @ w2) * (before > 0)
    return back.T @ inputs, error.T @ hidden


def test_grad_norm_and_snip():
    model = network()
    g1, g2 = gradients(model, 0)
    w1, _, w2, _ = weights(model)
    expected = np.linalg.norm(g1) + np.linalg.norm(g2)
    assert proxies.grad_norm(model, losses) == pytest.approx(expected, rel=1e-5)
    assert proxies.snip(model, losses) == pytest.approx(np.abs(w1 * g1).sum() + np.abs(w2 * g2).sum(), rel=1e-5)


def test_zico():
    model = network()
    expected = 0.0
    for layer in (0, 1):
        g = np.stack([gradients(model, seed)[layer] for seed in (0, 1)])
        moving = g.std(0) > 1e-9
        expected += math.log((np.abs(g).mean(0)[moving] / g.std(0)[moving]).sum())
    assert proxies.zico(model, losses) == pytest.approx(expected, rel=1e-4)


def test_synflow_by_hand_and_without_batch_norm():
    model = network()
    w1, b1, w2, _ = (np.abs(value) for value in weights(model))
    hidden = w1.sum(1) + b1
    first = (w1 * w2.sum(0)[:, None]).sum()  # dR/dw1[i, j] = sum_k |w2[k, i]|
    second = (w2 * hidden[None, :]).sum()
    expected = math.log1p(first + second)
    assert proxies.synflow(model, torch.zeros(1, INPUTS)) == pytest.approx(expected)
    normed = nn.Sequential(model[0], nn.BatchNorm1d(HIDDEN), model[1], model[2])
    normed[1].running_mean.fill_(3)
    before = {name: value.clone() for name, value in normed.state_dict().items()}
    assert proxies.synflow(normed, torch.zeros(1, INPUTS)) == pytest.approx(expected)
    assert all(torch.equal(value, before[name]) for name, value in normed.state_dict().items())


def test_naswot_counts_agreements():
    model = network()
    w1, b1, *_ = weights(model)
    on = batch(0)[0].double().numpy() @ w1.T + b1 > 0
    kernel = np.array([[(one == other).sum() for other in on] for one in on], dtype=float)
    expected = np.linalg.slogdet(kernel)[1]
    assert proxies.naswot(model, losses) == pytest.approx(expected)
    with pytest.raises(UserError, match="this network has none"):
        proxies.naswot(nn.Sequential(nn.Linear(INPUTS, CLASSES)), losses)


class Functional(nn.Module):
    """The network with its activation called as a function."""

    def __init__(self, inner: nn.Sequential, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.activation = inner, activation

    def forward(self, x: Tensor) -> Tensor:
        return self.inner[2](self.activation(self.inner[0](x)))


@pytest.mark.parametrize(
    "activation",
    [
        *(torch.relu, torch.relu_, functional.relu, functional.relu6, functional.leaky_relu, functional.elu),
        *(functional.silu, functional.gelu, functional.hardswish, functional.mish, Tensor.relu),
        *(nn.ReLU(inplace=True), nn.ReLU6(), nn.PReLU(), nn.SiLU(inplace=True), nn.GELU(approximate="tanh")),
    ],
    ids=lambda call: getattr(call, "__name__", str(call)),
)
def test_naswot_watches_activations_in_any_form(activation):
    model = network()
    assert proxies.naswot(Functional(model, activation), losses) == pytest.approx(proxies.naswot(model, losses))


def test_zen_on_a_linear_network_with_a_norm():
    """f(x) - f(x + 0.01 e) of a linear network is known; the norm's own statistics count once each."""
    model = nn.Sequential(nn.Linear(INPUTS, HIDDEN, bias=False))
    found = proxies.zen(model, torch.zeros(1, INPUTS), torch.Generator().manual_seed(3), batch=8)
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(HIDDEN, INPUTS, generator=generator).double().numpy()
    torch.randn(8, INPUTS, generator=generator)
    step = torch.randn(8, INPUTS, generator=generator).double().numpy()
    assert found == pytest.approx(math.log(np.abs(0.01 * step @ weight.T).sum(1).mean()), rel=1e-4)


def test_zen_adds_the_scale_that_batch_norm_takes_out():
    model = nn.Sequential(nn.Linear(INPUTS, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN))
    found = proxies.zen(model, torch.zeros(1, INPUTS), torch.Generator().manual_seed(3), batch=64)
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(HIDDEN, INPUTS, generator=generator).double().numpy()
    x, e = (torch.randn(64, INPUTS, generator=generator).double().numpy() for _ in range(2))

    def normed(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h = inputs @ weight.T
        return (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5), h.var(0, ddof=1)

    moved = np.abs(normed(x)[0] - normed(x + 0.01 * e)[0]).sum(1).mean()
    assert found == pytest.approx(math.log(moved) + math.log(math.sqrt(normed(x)[1].mean())), rel=1e-3)


def test_parameters():
    assert proxies.parameters(network()) == INPUTS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES
