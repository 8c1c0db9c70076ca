"""Examples written down as shapes: in lists of networks, and on the command line.

A list of numbers is the shape of a tensor of normal random numbers. `{shape: [2, 12], below: 100}` are random integers
from 0 to 99, `{shape: [2, 12], value: 1}` holds one value, and `dtype` is the name of a type of torch. A list of those
gives positional arguments, a mapping keyword arguments; both may be nested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dms_bench.scaling.example import Example

_FIELDS = {"shape", "below", "value", "dtype"}


def example_of_shapes(content: Any, seed: int = 0) -> Example:
    """Return the example that shapes describe; the same one every time.

    Args:
        content: see above; values of other kinds are handed on as they are.
        seed: of the random numbers.

    Raises:
        ValueError: it describes none.
    """
    generator = torch.Generator().manual_seed(seed)
    value = _value(content, generator)
    if isinstance(value, list) and not _is_shape(content):
        return Example.of(tuple(value))
    return Example.of(value)


def _value(content: Any, generator: torch.Generator) -> Any:
    if _is_shape(content):
        return _tensor({"shape": content}, generator)
    if isinstance(content, list):
        return [_value(part, generator) for part in content]
    if isinstance(content, Mapping):
        if "shape" in content:
            return _tensor(content, generator)
        return {name: _value(part, generator) for name, part in content.items()}
    return content


def _is_shape(content: Any) -> bool:
    return isinstance(content, list) and bool(content) and all(type(size) is int for size in content)


def _tensor(content: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    shape = content["shape"]
    if unknown := content.keys() - _FIELDS:
        raise ValueError(f"unknown field {min(map(str, unknown))!r}: a tensor has shape, below, value and dtype")
    if (shape != [] and not _is_shape(shape)) or any(size < 0 for size in shape):
        raise ValueError(f"{shape!r} is no shape: write the sizes in a list, such as [1, 3, 64, 64]")
    dtype = getattr(torch, str(content["dtype"]), None) if "dtype" in content else None
    if "dtype" in content and not isinstance(dtype, torch.dtype):
        raise ValueError(f"torch has no type {content['dtype']!r}; float, double, cfloat, long and bool are some")
    if "value" in content:
        return torch.full(shape, content["value"], dtype=dtype)
    if "below" in content:
        return torch.randint(content["below"], shape, generator=generator, dtype=dtype)
    return torch.randn(shape, generator=generator, dtype=dtype)
