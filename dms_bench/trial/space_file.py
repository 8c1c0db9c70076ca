"""A search space as bytes and back: tensors as safetensors, the rest as JSON in their header; no pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dms_bench.scaling import SearchSpace
from dms_bench.scaling.cost.model import CostModel
from dms_bench.scaling.space.elements import Group, NormedWeight, NormSite, RowSite, ShapeCall, Site, Stage

_CLASSES = {
    kind.__name__: kind for kind in (SearchSpace, Group, Stage, Site, RowSite, NormSite, NormedWeight, ShapeCall)
}
_DIGEST = hashlib.sha256().digest_size


class DamagedError(ValueError):
    """The bytes are not what was written."""


def to_bytes(space: SearchSpace, key: str) -> bytes:
    """Return a space as bytes.

    Args:
        space: what to write.
        key: what it belongs to; must be given again to read it.
    """
    tensors: dict[str, Tensor] = {}
    content = json.dumps({"key": key, "space": _encode(space, tensors)})
    body: bytes = save(tensors, {"content": content})
    return hashlib.sha256(body).digest() + body


def from_bytes(data: bytes, key: str) -> SearchSpace:
    """Return the space that `to_bytes` wrote.

    Raises:
        DamagedError: the bytes are damaged, or belong to another key.
    """
    digest, body = data[:_DIGEST], data[_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise DamagedError("the bytes have changed")
    try:
        tensors = load(body)
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])  # safetensors' own layout
        content = json.loads(header["__metadata__"]["content"])
        if content["key"] != key:
            raise DamagedError("a space of something else")
        space = _decode(content["space"], tensors)
    except (SafetensorError, LookupError, TypeError, ValueError) as error:
        raise DamagedError(str(error)) from error
    if not isinstance(space, SearchSpace):
        raise DamagedError("not a search space")
    return space


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Write a value as JSON; what JSON does not have is a mapping with one key, the kind."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.clone().contiguous()  # a file holds no two views of one memory
        return {"tensor": name}
    if isinstance(value, CostModel):
        return {"cost": _encode(vars(value), tensors)}
    if dataclasses.is_dataclass(value) and type(value).__name__ in _CLASSES:
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"class": [type(value).__name__, _encode(fields, tensors)]}
    if isinstance(value, dict):
        return {"dict": [[_encode(key, tensors), _encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple | frozenset):
        items = sorted(value) if isinstance(value, frozenset) else value
        return {type(value).__name__: [_encode(item, tensors) for item in items]}
    if isinstance(value, list):
        return [_encode(item, tensors) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a search space with a {type(value).__name__}")


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "cost":
        cost = CostModel([], 0)
        vars(cost).update(_decode(content, tensors))
        return cost
    if kind == "class":
        name, fields = content
        return _CLASSES[name](**_decode(fields, tensors))
    if kind == "dict":
        return {_decode(key, tensors): _decode(item, tensors) for key, item in content}
    items = _decode(content, tensors)
    return {"tuple": tuple, "frozenset": frozenset}[kind](items)
