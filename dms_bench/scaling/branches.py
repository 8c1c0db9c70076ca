"""Where residual branches end: the last affine layer of a branch can carry the mask of its block.

x + m f(x) costs nothing when f ends in a layer that is linear in its own parameters (a projection, a
norm with scale and shift, a layer scale): those are multiplied by m instead of the activations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dms_bench.scaling.operators import RESIDUAL_OPERATORS

#: Layers whose output is linear in their parameters taken together.
_AFFINE = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def find_tails(model: nn.Module, example: Tensor, blocks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the layers in which the branches of residual blocks end; nothing for blocks of another build.

    What is returned was tried: with these layers' parameters at zero each block returns its input.

    Args:
        model: the network, in eval mode; left as it is.
        example: its input.
        blocks: paths of residual blocks, none inside another.
    """
    watch = _Watch(model, blocks)
    with watch.hooks(), torch.no_grad(), watch:
        model(example)
    tails = {block: own for block, own in watch.tails.items() if own}
    identical = _Identical(model, tails)
    with _zeroed(model, [name for own in tails.values() for name in own]), identical.hooks(), torch.no_grad():
        model(example)
    return {block: tuple(own) for block, own in tails.items() if block in identical.found}


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the identity path through each block and notes which layers are added to it."""

    def __init__(self, model: nn.Module, blocks: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modules = dict(model.named_modules())
        self.blocks = blocks
        #: Layers added to the identity path; None once something else was added.
        self.tails: dict[str, list[str] | None] = {}
        self._running = ""
        self._path: set[int] = set()
        self._makers: dict[int, str] = {}
        self._alive: list[Any] = []  # ids stay unique only while their tensors live

    @contextmanager
    def hooks(self) -> Iterator[None]:
        handles = []
        for name, module in self.modules.items():
            if name in self.blocks:
                handles.append(module.register_forward_pre_hook(self._enter(name)))
                handles.append(module.register_forward_hook(self._leave))
            if any(name.startswith(block + ".") for block in self.blocks) and _is_affine(module):
                handles.append(module.register_forward_hook(self._made(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            self._running = name
            self.tails[name] = []
            self._path = {id(args[0])} if args else set()
            self._alive.append(args)

        return hook

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._running, self._path = "", set()

    def _made(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._makers[id(output)] = name
            self._alive.append(output)

        return hook

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operands = [value for value in args if isinstance(value, Tensor)]
        before = [(id(value), self._makers.get(id(value), "")) for value in operands]
        out = func(*args, **(kwargs or {}))
        self._alive.append((operands, out))
        operator = func.overloadpacket.__name__.rstrip("_")
        on_path = [key in self._path for key, _ in before]
        if operator in RESIDUAL_OPERATORS and any(on_path[: 2 if operator == "add" else 1]):
            self._path.add(id(out))
            own = self.tails.get(self._running)
            if operator == "add" and own is not None and not all(on_path):
                maker = before[on_path.index(False)][1] if len(before) == 2 else ""
                self.tails[self._running] = [*own, maker] if maker.startswith(self._running + ".") else None
        return out


class _Identical:
    """Notes which blocks return their input."""

    def __init__(self, model: nn.Module, blocks: dict[str, Any]) -> None:
        self.modules = {name: model.get_submodule(name) for name in blocks}
        self.found: set[str] = set()
        self._entries: dict[str, Tensor] = {}

    @contextmanager
    def hooks(self) -> Iterator[None]:
        handles = []
        for name, module in self.modules.items():
            handles.append(module.register_forward_pre_hook(self._enter(name)))
            handles.append(module.register_forward_hook(self._leave(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            self._entries[name] = args[0].clone()  # blocks may change their input in place

        return hook

    def _leave(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and torch.equal(output, self._entries[name]):
                self.found.add(name)

        return hook


def _is_affine(module: nn.Module) -> bool:
    """Whether zero parameters give zero, and parameters and output grow together."""
    own = [parameter for parameter in module._parameters.values() if parameter is not None]
    return bool(own) and (isinstance(module, _AFFINE) or type(module).__name__.startswith("LayerScale"))


@contextmanager
def _zeroed(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Set the parameters of some layers to zero for a while."""
    parameters = [p for name in names for p in model.get_submodule(name)._parameters.values() if p is not None]
    values = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value)
