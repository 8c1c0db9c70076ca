"""Training-free scores of a network: higher is taken to be better.

All are computed on a network with fresh random weights. Sums run over the weights of convolutions and linear
layers, not over biases and norms. Sources: Mellor et al. 2021 (NASWOT), Tanaka et al. 2020 (SynFlow), Lee et al. 2019
(SNIP), Abdelfattah et al. 2021 (gradient norm), Li et al. 2023 (ZiCo), Lin et al. 2021 (Zen).

Departures, because the networks scored here come from a search space and not from a generator of plain ones:
residual connections stay in ZiCo and Zen, which their authors take out. A space knows the blocks that can be
removed, but not the branches of blocks whose shortcut is a projection, nor of those that end in a nonlinear way; to
take out some connections and not others would give neither their score nor one of this network.

Shape legend:
    N: samples of a batch
    A: activations of a sample
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from dms_bench.errors import UserError

#: Losses of a network on a few training batches, each with its graph.
Losses = Callable[[nn.Module], Iterable[Tensor]]

#: Operators that switch a unit on or off around zero (`hardtanh` is what ReLU6 runs).
_SWITCHES = {"relu", "hardtanh", "leaky_relu", "prelu_kernel", "elu", "silu", "gelu", "hardswish", "mish"}
_ZEN_STEP = 0.01
#: A weight whose gradient does not change at all would give an infinite ratio.
_ZICO_CAP = 1e6


def parameters(model: nn.Module) -> float:
    """Return the number of parameters: the control for every other score."""
    return float(sum(parameter.numel() for parameter in model.parameters()))


def grad_norm(model: nn.Module, losses: Losses) -> float:
    """Return the sum over layers of the norm of the weight's gradient."""
    _backward(model, losses)
    return sum(float(weight.grad.norm()) for weight in _weights(model) if weight.grad is not None)


def snip(model: nn.Module, losses: Losses) -> float:
    """Return the sum of |w dL/dw|."""
    _backward(model, losses)
    return sum(
        float((weight.detach() * weight.grad).abs().sum()) for weight in _weights(model) if weight.grad is not None
    )


def synflow(model: nn.Module, example: Tensor) -> float:
    """Return log(1 + sum of |w dR/dw|), R the sum of outputs for ones with absolute weights and no batch norm.

    Args:
        model: the network; left as it is.
        example: an input, for its shape [1, ...].
    """
    model = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    with _bypassed(model):
        output = model(torch.ones_like(example, dtype=torch.double))
    output.sum().backward()
    return math.log1p(_saliency(model))


def zico(model: nn.Module, losses: Losses) -> float:
    """Return the sum over layers of ln sum_w mean |g| / std g, over batches, in double precision."""
    layer_gradients: dict[int, list[Tensor]] = {}
    model.train()
    for loss in losses(model):
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for index, weight in enumerate(_weights(model)):
            if weight.grad is not None:
                layer_gradients.setdefault(index, []).append(weight.grad.detach().double().flatten().clone())
    model.zero_grad()
    total = 0.0
    for gradients in layer_gradients.values():
        batches = torch.stack(gradients)
        deviation = batches.std(0, unbiased=False)
        moving = deviation > 0
        layer = (batches.abs().mean(0)[moving] / deviation[moving]).clamp(max=_ZICO_CAP).sum()
        total += math.log(float(layer)) if float(layer) > 0 else 0.0
    return total


def zen(model: nn.Module, example: Tensor, generator: torch.Generator, batch: int = 16) -> float:
    """Return the log of how far features move with a small step of the input, and the batch norms' scales.

    Args:
        model: the network; left as it is. Features are what it returns before pooling, where it says
            (`forward_features`), else its output.
        example: an input, for its shape [1, ...].
        generator: draws weights and inputs.
        batch: samples, N.
    """
    model = copy.deepcopy(model).train()
    with torch.no_grad():
        for weight in _weights(model):
            weight.copy_(torch.randn(weight.shape, generator=generator))
        x = torch.randn(batch, *example.shape[1:], generator=generator)
        step = torch.randn(batch, *example.shape[1:], generator=generator)
        features = getattr(model, "forward_features", model)
        unmoved = features(x)
        # Variances of this batch alone, not of a moving average.
        scales = sum(math.log(max(value, 1e-30)) / 2 for value in _variances(model, features, x))
        moved = (unmoved - features(x + _ZEN_STEP * step)).flatten(1).abs().sum(1).mean()
    return math.log(max(float(moved), 1e-30)) + scales


def naswot(model: nn.Module, losses: Losses) -> float:
    """Return log |det K|, K the number of units on which two samples of a batch agree in being on or off.

    Activations are watched as operators, so that those called as functions count as modules do.

    Raises:
        UserError: the network has no activation that switches units.
    """
    watch = _ActivationWatch()
    with torch.no_grad(), watch:
        next(iter(losses(model.train())))
    if watch.kernel is None:
        raise UserError(f"naswot watches activations, and this network has none of {', '.join(sorted(_SWITCHES))}")
    return float(torch.linalg.slogdet(watch.kernel).logabsdet)


class _ActivationWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums, over all activations, how many units agree for each pair of samples, [N, N]."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernel: Tensor | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__.strip("_") in _SWITCHES:
            on = (args[0].flatten(1) > 0).double()  # [N, A]
            agreeing = on @ on.T + (1 - on) @ (1 - on).T
            self.kernel = agreeing if self.kernel is None else self.kernel + agreeing
        return func(*args, **(kwargs or {}))


def _weights(model: nn.Module) -> list[Tensor]:
    layers = (module for module in model.modules() if isinstance(module, nn.Linear | nn.modules.conv._ConvNd))
    return [layer.weight for layer in layers]


def _saliency(model: nn.Module) -> float:
    """Sum of |w g| over the gradients at hand."""
    products = ((w.detach() * w.grad).abs().sum() for w in _weights(model) if w.grad is not None)
    return float(sum(products))


def _backward(model: nn.Module, losses: Losses) -> None:
    model.train().zero_grad()
    next(iter(losses(model))).backward()  # type: ignore[no-untyped-call]


def _variances(model: nn.Module, features: Callable[[Tensor], Tensor], x: Tensor) -> Iterator[float]:
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_var is not None]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    features(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        assert norm.running_var is not None
        yield float(norm.running_var.mean())


@contextmanager
def _bypassed(model: nn.Module) -> Iterator[None]:
    """Let batch norms (not the activations that some bring along) return their input."""
    before: list[tuple[_BatchNorm, Any]] = []
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            before.append((module, module.__dict__.get("forward")))
            following = [getattr(module, name, None) for name in ("drop", "act")]
            module.__dict__["forward"] = nn.Sequential(*(part for part in following if isinstance(part, nn.Module)))
    try:
        yield
    finally:
        for norm, forward in before:
            if forward is None:
                del norm.__dict__["forward"]
            else:
                norm.__dict__["forward"] = forward
