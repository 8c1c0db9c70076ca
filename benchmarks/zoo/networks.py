"""Networks of many libraries and inputs of them, as lists such as `any.yaml` write them down.

A list is a mapping from library to name to entry:

    torchvision:
      lraspp:
        make: torchvision.models.segmentation:lraspp_mobilenet_v3_large   # what to call: module:function or class
        args: {weights: null, weights_backbone: null, num_classes: 5}     # its arguments; a list gives positional ones
        example: [2, 3, 64, 64]                                           # an input of the network

Arguments may hold calls of their own, mappings with `make`. Examples are written as `dms_bench/scaling/shapes.py` says,
and may hold calls, too, whose arguments are tensors.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from dms_bench.scaling import Example
from dms_bench.scaling.shapes import example_of_shapes


@dataclass(frozen=True)
class Entry:
    """A network of a list."""

    name: str
    family: str
    content: dict[str, Any]

    def build(self) -> tuple[nn.Module, Example]:
        """Return the network with random weights, in eval mode, and an input of it; the same ones every time."""
        torch.manual_seed(0)
        with _unset_is_nan():
            model = _built({"make": self.content["make"], "args": self.content.get("args", {})})
        for parameter in model.parameters():
            if not parameter.isfinite().all():  # its library leaves it to a checkpoint
                nn.init.normal_(parameter, std=0.02)
        return model.eval(), example_of_shapes(_input(self.content["example"]))


@contextmanager
def _unset_is_nan() -> Iterator[None]:
    """Let memory that nobody has written to hold no numbers, in the place of whatever it held before."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # which fills what `torch.empty` returns
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class Tagger(nn.Module):
    """A recurrent layer of torch between two linear ones, as taggers have it: alone, all of it would be output.

    Args:
        kind: of the layer: LSTM, GRU, RNN.
        width: of what the layer reads.
        options: of the layer.
    """

    def __init__(self, kind: str, width: int, **options: Any) -> None:
        super().__init__()
        self.first, self.layer = nn.Linear(width, width), getattr(nn, kind)(width, **options)
        features = options.get("proj_size") or options["hidden_size"]
        self.last = nn.Linear(features * (2 if options.get("bidirectional") else 1), 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of five tags at every step."""
        scores: Tensor = self.last(self.layer(self.first(x))[0])
        return scores


@dataclass(frozen=True)
class TimmEntry:
    """A model of timm."""

    name: str
    family: str = ""

    def build(self) -> tuple[nn.Module, Example]:
        """Return the model for ten classes, in eval mode, and an image at the smallest size that it accepts."""
        import timm

        torch.manual_seed(0)
        config = timm.get_pretrained_cfg(self.name)
        channels, own = (config.input_size[0], config.input_size[-1]) if config else (3, 224)
        first: Exception | None = None
        for size in [size for size in SIZES if size < own] + [own]:
            image = torch.randn(1, channels, size, size)
            for args in ({"img_size": size}, {}):
                try:
                    model = timm.create_model(self.name, num_classes=10, **args).eval()
                    with torch.no_grad():
                        model(image)
                        model.train()(image.repeat(2, 1, 1, 1))  # batch norms need two samples
                except (TypeError, ValueError, RuntimeError, AssertionError, IndexError) as error:
                    first = first or error
                else:
                    return timm.create_model(self.name, num_classes=10, **args).eval(), Example(image)
        raise ValueError(f"no input size from {SIZES[0]} to {own} works: {first}")


AnyEntry = Entry | TimmEntry
#: Sizes of timm's inputs that are tried, in pixels; then the model's own.
SIZES = (64, 96, 128, 160, 192, 224, 256, 288, 384)


def read(path: Path) -> list[AnyEntry]:
    """Read a list: names of timm's models, alone or by family, or entries of libraries."""
    content = yaml.safe_load(path.read_text())
    if isinstance(content, list):
        return [TimmEntry(name) for name in content]
    return [
        Entry(name, family, networks[name]) if isinstance(networks, dict) else TimmEntry(name, family)
        for family, networks in content.items()
        for name in networks
    ]


def _input(content: Any) -> Any:
    """Return an example's content with the calls that it holds made."""
    if isinstance(content, dict):
        if "make" in content:
            args = {name: example_of_shapes(part).args[0] for name, part in content["args"].items()}
            return _called(content["make"], args)
        return {name: _input(part) for name, part in content.items()}
    if isinstance(content, list):
        return [_input(part) for part in content]
    return content


def _built(content: Any) -> Any:
    """Return an argument of a call, with the calls that it holds made."""
    if isinstance(content, dict):
        if "make" in content:
            return _called(content["make"], _built(content.get("args", {})))
        return {name: _built(part) for name, part in content.items()}
    if isinstance(content, list):
        return [_built(part) for part in content]
    return content


def _called(target: str, args: Any) -> Any:
    module, _, path = target.partition(":")
    function: Any = importlib.import_module(module)
    for name in path.split("."):
        function = getattr(function, name)
    return function(**args) if isinstance(args, dict) else function(*args)
