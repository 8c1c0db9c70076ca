"""Wider and deeper networks of timm's families: the multipliers of their builders, on top of a network's own.

timm's `mobilenetv2_120d` is its builder `_gen_mobilenet_v2` with multipliers of channels and blocks, which no argument
of `timm.create_model` reaches. Here the same function runs with a builder that multiplies them further.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import nn

from dms_bench.errors import UserError

#: What timm's builders call their multipliers.
_WIDTH = ("channel_multiplier", "model_width", "width")
_DEPTH = ("depth_multiplier",)
#: Arguments of timm's other networks that decide their size, as far as people look for them.
_OWN = (
    *("depth", "depths", "depth_mult", "embed_dim", "embed_dims", "dims", "channels", "layers", "num_heads"),
    *("mlp_ratio", "width_mult"),
)


def multiplied(name: str, width: float, depth: float) -> Callable[..., nn.Module]:
    """Return what builds a network of timm with `width` times its channels and `depth` times the blocks of its stages.

    Channels are rounded as the family rounds them (to multiples of 8, mostly), blocks are rounded up.

    Raises:
        UserError: its builder has no such multiplier.
    """
    from timm.models import is_model, model_entrypoint

    architecture = name.partition(".")[0]
    if not is_model(architecture):
        raise UserError(f"supernet.model {name!r} has no multipliers: none of timm's builders makes it")
    entry = model_entrypoint(architecture)
    base = _parameters(entry)
    for dimension, (w, d) in (("width", (width, 1.0)), ("depth", (1.0, depth))):
        # Some builders take a multiplier and ignore it: only a network that changed has been multiplied.
        if (w, d) != (1, 1) and _parameters(_with(entry, w, d)) == base:
            raise UserError(f"supernet.model {name!r} has no {dimension} multiplier in timm{_instead(entry)}")
    return _with(entry, width, depth)


def _with(entry: Any, width: float, depth: float) -> Callable[..., nn.Module]:
    """Return a function of timm in whose sight builders multiply."""
    scope = entry.__globals__
    builders = {
        callee: _multiplying(scope[callee], width, depth) for callee in entry.__code__.co_names if callee in scope
    }
    twin = FunctionType(entry.__code__, {**scope, **builders}, entry.__name__, entry.__defaults__, entry.__closure__)
    twin.__kwdefaults__ = entry.__kwdefaults__
    return twin


def _multiplying(builder: Any, width: float, depth: float) -> Any:
    if not inspect.isfunction(builder):
        return builder
    signature = inspect.signature(builder)

    def build(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for names, factor in ((_WIDTH, width), (_DEPTH, depth)):
            for name in signature.parameters.keys() & set(names):
                value = bound.arguments[name]
                scaled = tuple(factor * part for part in value) if isinstance(value, tuple) else factor * value
                bound.arguments[name] = scaled
        return builder(*bound.args, **bound.kwargs)

    return build


def _parameters(entry: Callable[..., nn.Module]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in entry(pretrained=False).parameters())


def _instead(entry: Callable[..., nn.Module]) -> str:
    """Say which arguments of the network decide its size."""
    with torch.device("meta"):
        accepted = inspect.signature(type(entry(pretrained=False)).__init__).parameters
    size_arguments = [argument for argument in _OWN if argument in accepted]
    return f"; its size is decided by supernet.args: {', '.join(size_arguments)}" if size_arguments else ""
