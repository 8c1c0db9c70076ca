"""Weights of classifiers out of a file: of other classes, of other channels, or as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench_tasks.common.notes import say_once
from dms_bench_tasks.common.weights import bare, give, read, without


def load_weights(model: nn.Module, path: str, *, fresh_head: bool = False) -> None:
    """Load a safetensors or weights-only checkpoint.

    The first convolution is adapted to another number of channels as timm does it, which is said.

    Args:
        model: the network.
        path: of the checkpoint.
        fresh_head: leave the classifier as it was drawn, whatever the checkpoint has in its place; said, too.

    Raises:
        UserError: it is missing, damaged or belongs to another network, whose tensors are named; which layers classify
            is not known.
    """
    state = read(path)
    drawn = _names_of_head(model) if fresh_head else set()
    body = without(state, drawn)
    try:
        give(model, body, path, drawn, _first_convolution(model))
    except UserError as error:
        if not fresh_head and classifies_otherwise(model, state):
            raise UserError(f"{error}; fresh_head: true draws the classifier anew, for other classes") from error
        raise
    if len(body) < len(state):
        say_once(f"supernet.checkpoint {path!r}: its classifier is not taken; it is drawn anew")


def classifies_otherwise(model: nn.Module, state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint fits a network but for the shapes of its classifier, which tells other classes apart."""
    expected, head = model.state_dict(), _names_if_known(model)
    shapes = {name: getattr(tensor, "shape", None) for name, tensor in bare(state, expected).items()}
    return any(name in shapes and shapes[name] != expected[name].shape for name in head)


def _first_convolution(model: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return what fits the weight of the convolution that reads the image to its channels, by the weight's name."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return {f"{name}.weight": partial(_for_channels, module.weight.size(1))}
    return {}


def _for_channels(channels: int, weight: Tensor) -> Tensor:
    """Adapt a convolution's weight to grey or colour images as timm does; as it is where it is for neither."""
    from timm.models._manipulate import adapt_input_conv

    given = weight.size(1) if weight.dim() == 4 else 0
    if {channels, given} != {1, 3}:
        return weight
    base = {} if given == 3 else {"base_chans": given}
    adapted: Tensor = adapt_input_conv(channels, weight, **base)
    return adapted


def _names_if_known(model: nn.Module) -> set[str]:
    """Return the names of the classifier's tensors; none where it is not known."""
    heads = classifiers(model)
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if any(module is head for head in heads)
        for name in module.state_dict()
    }


def _names_of_head(model: nn.Module) -> set[str]:
    """Return the names of the classifier's tensors. Raises UserError where it is not known."""
    names = _names_if_known(model)
    if not names:
        raise UserError("supernet.fresh_head: which layers of this network classify is not known")
    return names


def classifiers(core: nn.Module) -> list[nn.Module]:
    """Return the final classifiers of a network of timm; distilled networks have two."""
    get_classifier: Any = getattr(core, "get_classifier", None)
    heads = get_classifier() if get_classifier else ()
    return [head for head in (heads if isinstance(heads, tuple | list) else (heads,)) if isinstance(head, nn.Module)]
