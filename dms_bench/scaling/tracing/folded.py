"""Norms into which the mask of the layers behind them can be folded.

norm(x) * m = x' * (scale * m) + shift * m: where nothing but masked layers reads a norm's output, the mask goes
into the norm's scale and shift, which are vectors, instead of into every weight behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dms_bench.scaling.example import Example
from dms_bench.scaling.modules.hooked import hooked


def find_folded_masks(
    model: nn.Module, example: Example, norms: Sequence[str], layers: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the norms whose outputs are the inputs of some layers and are used nowhere else.

    Args:
        model: the network, in eval mode; left as it is.
        example: its input.
        norms: paths of the norms in question.
        layers: paths of the layers in question.

    Returns:
        norm -> the layers that read it.
    """
    watch = _NormOutputWatch(dict(model.named_modules()), norms, layers)
    with watch.hooks(), torch.no_grad(), watch:
        example(model)
    return {norm: tuple(readers) for norm, readers in watch.readers.items() if readers and norm not in watch.ruled_out}


class _NormOutputWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator that touches the memory of a norm's output."""

    def __init__(self, modules: dict[str, nn.Module], norms: Sequence[str], layers: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modules, self.norms, self.layers = modules, norms, layers
        self.readers: dict[str, list[str]] = {}
        self.ruled_out: set[str] = set()
        #: Storage of a norm's output -> the norm.
        self._made: dict[int, str] = {}
        self._outputs: dict[str, Tensor] = {}  # storages stay apart only while their tensors live
        self._fed_by: dict[str, str | None] = {}
        self._reading: str | None = None

    def hooks(self) -> AbstractContextManager[None]:
        handles = [self.modules[name].register_forward_hook(self._norm_done(name)) for name in self.norms]
        for name in self.layers:
            handles.append(self.modules[name].register_forward_pre_hook(self._layer_begins(name)))
            handles.append(self.modules[name].register_forward_hook(self._layer_done))
        return hooked(handles)

    def _norm_done(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if name in self._outputs or not isinstance(output, Tensor):  # used twice: left alone
                self.ruled_out.add(name)
                return
            self._outputs[name] = output
            self._made[_storage(output)] = name
            self.readers[name] = []

        return hook

    def _layer_begins(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            norm = self._made.get(_storage(args[0])) if args and isinstance(args[0], Tensor) else None
            if norm is not None and args[0] is not self._outputs[norm]:  # a view, perhaps of other features
                self.ruled_out.add(norm)
            if self._fed_by.setdefault(name, norm) != norm:  # a layer that runs on several inputs
                self.ruled_out.update(feed for feed in (norm, self._fed_by[name]) if feed is not None)
            if norm is not None:
                self.readers[norm].append(name)
            self._reading = norm

        return hook

    def _layer_done(self, module: nn.Module, args: Any, output: Any) -> None:
        self._reading = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for argument in torch.utils._pytree.tree_leaves((args, kwargs or {})):
            norm = self._made.get(_storage(argument)) if isinstance(argument, Tensor) else None
            if norm is not None and norm != self._reading:
                self.ruled_out.add(norm)
        return func(*args, **(kwargs or {}))


def _storage(tensor: Tensor) -> int:
    if tensor.layout != torch.strided:  # a sparse adjacency has no memory of one piece
        return id(tensor)
    return int(tensor.untyped_storage()._cdata)
