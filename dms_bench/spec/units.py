"""Quantities with units, as people write them in a suite: `450M`, `30%`, `3ms`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_SCALE = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_NUMBER = r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)"


def parse_count(value: Any) -> Any:
    """Turn `450M`, `5.47B` or `1e6` into a number of things; leave numbers as they are."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(_NUMBER + r"\s*([kKmMgGbBtT]?)", value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a count; write for example 450M, 1.2G or 300000")
    return float(match[1]) * _SCALE[match[2].lower()]


def parse_amount(value: Any) -> Any:
    """Turn `30%` into the fraction 0.3 of the supernet, anything else into a count above 1."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            raise ValueError(f"{value!r} is not a percentage; write for example 30%") from None
    return parse_count(value)


def parse_duration(value: Any) -> Any:
    """Turn `3ms`, `2s` or `1.5h` into seconds; leave numbers (seconds) as they are."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(_NUMBER + r"\s*(us|ms|s|min|h)", value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write for example 3ms, 2s or 1.5h")
    return float(match[1]) * _SECONDS[match[2]]


#: A number of things (samples, parameters, multiply-accumulates).
Count = Annotated[float, BeforeValidator(parse_count), Field(gt=0)]
#: A whole number of things.
WholeCount = Annotated[int, BeforeValidator(parse_count), Field(gt=0)]
#: A fraction of the supernet when at most 1 (`30%`, `0.3`), an absolute count above.
Amount = Annotated[float, BeforeValidator(parse_amount), Field(gt=0)]
#: A time in seconds.
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
