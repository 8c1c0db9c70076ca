"""An input of a network: one tensor, or any nesting of tensors and constants in the arguments of its `forward`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.modules.precision import number_in

#: What functions of this package take for an example: a tensor, a tuple of positional arguments, a mapping of keyword
#: arguments, an `Example`, or one argument of any other kind (a list of images, a graph).
AnyExample = Any


class Example:
    """The arguments of a network's `forward`, such as `Example(tokens, mask=mask)`.

    Sizes and types matter, values hardly do. Tensors whose first dimension is as large as that of the first tensor
    are taken for batches of samples, where the network takes them as such.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    @classmethod
    def of(cls, value: AnyExample) -> Example:
        """Return what a user passes as an example: see `AnyExample`.

        Raises:
            TypeError: it holds no tensor, or a sparse one, or is a mapping whose keys cannot be names of arguments.
            ValueError: it is a batch of nothing.
        """
        if isinstance(value, Example):
            example = value
        elif isinstance(value, tuple) and not hasattr(value, "_fields"):
            example = cls(*value)
        elif isinstance(value, Mapping):
            if not all(isinstance(name, str) for name in value):
                raise TypeError("a mapping as example gives keyword arguments by name; wrap another one in a tuple")
            example = cls(**value)
        else:
            example = cls(value)
        if not example.tensors() and all(
            isinstance(part, _CONSTANTS) for part in _leaves((example.args, example.kwargs))
        ):
            raise TypeError(f"the example holds no tensor: {value!r}")
        if any(tensor.layout != torch.strided for tensor in example.tensors()):
            raise TypeError("the example holds a sparse tensor, whose elements cannot be followed")
        if example.rows == 0:
            raise ValueError(f"the example has no rows: {example!r}")
        return example

    def __repr__(self) -> str:
        """Show its arguments, tensors by their types and shapes."""
        named = [f"{name}={_shown(value)}" for name, value in self.kwargs.items()]
        return f"Example({', '.join([*map(_shown, self.args), *named])})"

    def __call__(self, model: nn.Module) -> Any:
        """Run a network on it.

        Raises:
            TypeError: the network takes other arguments.
        """
        try:
            return model(*self.args, **self.kwargs)
        except TypeError as error:
            if "argument" not in str(error):
                raise
            raise TypeError(
                f"{error}. The example was read as {self!r}: a tuple gives positional arguments and a mapping keyword "
                "arguments; Example(value) gives one argument of any kind"
            ) from error

    def tensors(self) -> list[Tensor]:
        """Return its tensors, in order."""
        return tensors_in((self.args, self.kwargs))

    @property
    def rows(self) -> int:
        """Size of the first tensor's first dimension: of the batch, as a rule."""
        return next((tensor.size(0) for tensor in self.tensors() if tensor.dim()), 1)

    @property
    def alone(self) -> bool:
        """Whether it is one tensor, whose rows are samples."""
        return len(self.args) == 1 and not self.kwargs and isinstance(self.args[0], Tensor)

    def batch(self, rows: int) -> Example:
        """Return a batch of different samples, made from the first one.

        Samples are reversed and rolled along their last dimension, so that what depends on the sample cannot be taken
        for something fixed.
        """
        size = self.rows

        def resized(tensor: Tensor) -> Tensor:
            if tensor.dim() == 0 or tensor.size(0) != size:
                return tensor
            sample = tensor[:1]
            if tensor.dim() == 1:
                return sample.expand(rows).clone()
            samples = [sample, sample.flip(-1), *(sample.roll(turn, -1) for turn in range(1, rows - 1))]
            return torch.cat(samples[:rows])

        return self.mapped(resized)

    def to(self, device: torch.device | str) -> Example:
        """Return it on a device."""
        return self.mapped(lambda tensor: tensor.to(device))

    def in_precision(self, dtype: torch.dtype) -> Example:
        """Return it with real numbers in one precision, and complex ones of that precision."""
        return self.mapped(lambda tensor: number_in(tensor, dtype))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Example:
        """Return it with every tensor changed."""
        return Example(*_mapped(self.args, change), **_mapped(self.kwargs, change))


_CONSTANTS = (int, float, str, bytes, type(None))


def outputs_in(value: Any) -> list[Tensor]:
    """Return the tensors of what a network returns, also those that objects of any class hold as attributes.

    Not those in caches of keys and values, by which language models go on from where they stopped: they are working
    memory.
    """
    tensors: list[Tensor] = []
    seen: set[int] = set()

    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif id(value) not in seen and not isinstance(value, (nn.Module, type)):
            seen.add(id(value))
            parts = _parts(value)
            if parts is None and not type(value).__name__.endswith("Cache"):
                parts = list(getattr(value, "__dict__", {}).values())
            for part in parts or ():
                visit(part)

    visit(value)
    return tensors


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in mappings, sequences and dataclasses, however they are nested; other objects have none."""
    return [leaf for leaf in _leaves(value) if isinstance(leaf, Tensor)]


def _leaves(value: Any) -> list[Any]:
    parts = _parts(value)
    return [value] if parts is None else [leaf for part in parts for leaf in _leaves(part)]


def _parts(value: Any) -> Sequence[Any] | None:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return None


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a nesting with every tensor changed; what holds none is left as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if not tensors_in(value):
        return value
    if isinstance(value, tuple):
        parts = [_mapped(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    changed = copy.copy(value)  # with whatever else the objects of a class of one's own hold
    if isinstance(value, MutableMapping):
        for name, part in value.items():
            changed[name] = _mapped(part, change)
    elif isinstance(value, list):
        changed[:] = [_mapped(part, change) for part in value]
    elif isinstance(value, Mapping):
        return {name: _mapped(part, change) for name, part in value.items()}
    else:
        for field in dataclasses.fields(value):
            object.__setattr__(changed, field.name, _mapped(getattr(value, field.name), change))
    return changed


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {_shown(part)}" for name, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return ("[{}]" if isinstance(value, list) else "({})").format(", ".join(map(_shown, value)))
    return repr(value) if isinstance(value, _CONSTANTS) else type(value).__name__
