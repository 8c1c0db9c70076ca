"""Where residual branches end: the last affine layer of a branch can carry the mask of its block.

x + m f(x) costs nothing when f ends in a layer that is linear in its own parameters (a projection, a
norm with scale and shift, a layer scale): those are multiplied by m instead of the activations.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dms_bench.scaling.example import Example
from dms_bench.scaling.modules.blocks import argument_of, entry_of, features_of, with_entry
from dms_bench.scaling.modules.generic import generic_copy
from dms_bench.scaling.modules.hooked import hooked
from dms_bench.scaling.tracing.operators import RESIDUAL_OPERATORS

#: Inputs of blocks are tried this many times as large, beyond what an activation behind the addition lets pass (6).
LARGE = 128.0
#: Layers whose output is linear in their parameters taken together.
_AFFINE = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def find_tails(
    model: nn.Module, example: Example, blocks: Sequence[str], answers: Mapping[str, Sequence[str]] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the layers in which the branches of residual blocks end; nothing for blocks of another build.

    What is returned was tried, on generic weights: with these layers' parameters at zero each block returns its
    input, where all blocks before it stay and where none does. A non-negative stem, say, hides from the first block
    alone what a leaky activation does to the others; and a norm that is zero at first hides everything.

    Args:
        model: the network; left as it is.
        example: its input.
        blocks: paths of residual blocks, none inside another.
        answers: of those that return a tuple: what stands for each entry when they are gone.
    """
    model = generic_copy(model, torch.float, seed=0)
    example = example.in_precision(torch.float)
    watch = _IdentityPathWatch(model, blocks)
    with watch.hooks(), torch.no_grad(), watch:
        example(model)
    tails = {block: layers for block, layers in watch.tails.items() if layers}
    identical = _Identical(model, tails, answers or {})
    with identical.hooks(), torch.no_grad():
        example(model)
        with _zeroed(model, [name for layers in tails.values() for name in layers]):
            example(model)
    return {block: tuple(layers) for block, layers in tails.items() if block not in identical.refuted}


class _IdentityPathWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
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

    def hooks(self) -> AbstractContextManager[None]:
        handles = []
        for name, module in self.modules.items():
            if name in self.blocks:
                handles.append(module.register_forward_pre_hook(self._enter(name), with_kwargs=True))
                handles.append(module.register_forward_hook(self._leave))
            if any(name.startswith(block + ".") for block in self.blocks) and _is_affine(module):
                handles.append(module.register_forward_hook(self._made(name)))
        return hooked(handles)

    def _enter(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            entry = entry_of(args, kwargs)
            self._running = name
            self.tails[name] = []
            self._path = {id(entry)}
            self._alive.append(entry)

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
            layers = self.tails.get(self._running)
            if operator == "add" and layers is not None and not all(on_path):
                maker = before[on_path.index(False)][1] if len(before) == 2 else ""
                self.tails[self._running] = [*layers, maker] if maker.startswith(self._running + ".") else None
        return out


class _Identical:
    """Tries on its way through a network which blocks return their input without their tails."""

    def __init__(self, model: nn.Module, tails: dict[str, list[str]], answers: Mapping[str, Sequence[str]]) -> None:
        self.model, self.tails, self.answers = model, tails, answers
        self.refuted: set[str] = set()

    def hooks(self) -> AbstractContextManager[None]:
        return hooked(
            self.model.get_submodule(name).register_forward_pre_hook(self._try(name), with_kwargs=True)
            for name in self.tails
        )

    def _try(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            entry = entry_of(args, kwargs)
            assert entry is not None
            entry = entry * LARGE
            with _zeroed(self.model, self.tails[name]):
                # It may change what it is given in place: its input, and caches of keys and values.
                copied, named = with_entry(*copy.deepcopy((args, kwargs)), entry.clone())
                output = module.forward(*copied, **named)
            args, kwargs = with_entry(args, kwargs, entry)
            streams = [(features_of(output), entry)]
            if type(output) is tuple and name in self.answers:
                given = [argument_of(args, kwargs, answer) for answer in self.answers[name]]
                streams = [pair for pair in zip(output, given, strict=True) if isinstance(pair[1], Tensor)]
            if not all(isinstance(value, Tensor) and torch.equal(value, given) for value, given in streams):
                self.refuted.add(name)

        return hook


def _is_affine(module: nn.Module) -> bool:
    """Whether zero parameters give zero, and parameters and output grow together."""
    parameters = [parameter for parameter in module._parameters.values() if parameter is not None]
    if hasattr(module, "weight") and "weight" not in module._parameters:
        return False  # it computes its weight from other tensors
    return bool(parameters) and (isinstance(module, _AFFINE) or type(module).__name__.startswith("LayerScale"))


@contextmanager
def _zeroed(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Let some layers see parameters of zero for a while; others that share the parameters do not."""
    layers = [model.get_submodule(name) for name in dict.fromkeys(names)]
    before = [dict(layer._parameters) for layer in layers]
    for layer, parameters in zip(layers, before, strict=True):
        layer._parameters.update(
            {
                leaf: None if parameter is None else nn.Parameter(torch.zeros_like(parameter), requires_grad=False)
                for leaf, parameter in parameters.items()
            }
        )
    try:
        yield
    finally:
        for layer, parameters in zip(layers, before, strict=True):
            layer._parameters.update(parameters)
