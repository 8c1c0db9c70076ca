"""What a network was called with, and what single layers of it get and return when it is called so again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from dms_bench.scaling.modules.hooked import hooked
from dms_bench.scaling.modules.modes import modes_kept

#: Positional and keyword arguments, on the CPU.
Call = tuple[tuple[Any, ...], dict[str, Any]]


class _Enough(BaseException):
    """Ends a forward pass of which nothing more is wanted; no exception of the network's own."""


def recorded(network: nn.Module, work: Callable[[], object]) -> list[Call]:
    """Return what a network is called with while something else works with it."""
    calls: list[Call] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(_copied((args, kwargs), torch.device("cpu")))

    with hooked([network.register_forward_pre_hook(note, with_kwargs=True)]):
        work()
    return calls


def order_of(network: nn.Module, names: Iterable[str], call: Call, device: torch.device) -> dict[str, int]:
    """Return how often layers are called in a forward pass, in the order of their first calls; others are missing."""
    times: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., None]:
        return lambda module, args: times.update([name])

    with hooked(network.get_submodule(name).register_forward_pre_hook(counting(name)) for name in names):
        run(network, call, device)
    return dict(times)


def passed(network: nn.Module, name: str, times: int, call: Call, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Return the input and the output of a layer in each of its first calls; the network is run no further."""
    seen: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        seen.append((x.detach().clone(), output.detach().clone()))  # what follows may work in place
        if len(seen) == times:
            raise _Enough

    with hooked([network.get_submodule(name).register_forward_hook(note, with_kwargs=True)]), suppress(_Enough):
        run(network, call, device)
    return seen


def run(network: nn.Module, call: Call, device: torch.device) -> None:
    """Run a network on a device as it was called, in eval mode and without gradients."""
    args, kwargs = _copied(call, device)
    with modes_kept(network), torch.no_grad():
        network.eval()
        network(*args, **kwargs)


def _copied(call: Any, device: torch.device) -> Any:
    """Return a call on a device, with tensors of its own: a network may change what it is given."""
    return tree_map(lambda leaf: leaf.detach().to(device, copy=True) if isinstance(leaf, Tensor) else leaf, call)
