"""Quantities with units, as people write them in a suite: `450M`, `30%`, `3ms`."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from dms_bench.config.problems import show

_SCALE = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_NUMBER = r"([0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)"
_COUNT = _NUMBER + r"\s*([kKmMgGbBtT]?)"
_PERCENT = _NUMBER + r"\s*(%)"
_SIZE = _NUMBER + r"\s*([kKmMgGtT]?[iI]?[bB])"
_DURATION = _NUMBER + r"\s*(us|ms|s|min|h)"


def also_boolean(schema: dict[str, Any]) -> None:
    """Tell readers of the JSON Schema that `true` takes a mapping's defaults; for `json_schema_extra`."""
    schema["anyOf"] = [*schema["anyOf"], {"type": "boolean"}]


def parse_count(value: Any) -> float:
    """Turn `450M`, `5.47B`, `1e6` or a number into a positive, finite number of things."""
    return _parse(value, _COUNT, _SCALE, "a count; write for example 450M, 1.2G or 300000")


def parse_duration(value: Any) -> float:
    """Turn `3ms`, `2s`, `1.5h` or a number of seconds into seconds."""
    return _parse(value, _DURATION, _SECONDS, "a duration; write for example 3ms, 2s or 1.5h")


def parse_amount(value: Any) -> float:
    """Turn `30%` into the fraction 0.3 of the supernet, anything else as `parse_count` does."""
    if isinstance(value, str) and value.strip().endswith("%"):
        percent = _parse(value, _PERCENT, {"%": 1.0}, "a percentage; write for example 30%")
        if percent > 100:
            raise ValueError(f"{show(value)} is more than the whole supernet; write at most 100%")
        return percent / 100
    return _parse(value, _COUNT, _SCALE, "an amount; write for example 30%, 450M or 1.2G")


def parse_latency(value: Any) -> tuple[float | None, float | None]:
    """Turn `60%` into (0.6 of the supernet's latency, None), `3ms` into (None, 0.003 seconds).

    A number without a unit is a fraction of at most 1; it could not be told from a duration otherwise.
    """
    expected = "a latency; write for example 60% or 3ms"
    if isinstance(value, str) and re.fullmatch(_DURATION, value.strip()):
        return None, _parse(value, _DURATION, _SECONDS, expected)
    if isinstance(value, str) and not value.strip().endswith("%"):
        value = float(value) if re.fullmatch(_NUMBER, value.strip()) else value
    share = parse_amount(value) if isinstance(value, str) and "%" in value else _parse(value, _NUMBER, {}, expected)
    if share > 1:
        raise ValueError(f"{show(value)} has no unit; write for example 60% or 3ms")
    return share, None


def parse_size(value: Any) -> float:
    """Turn `60%` into the fraction 0.6 of the supernet's memory, `8GB`, `512MiB` or a number above 1 into bytes."""
    expected = "a size; write for example 60%, 512MB or 8GiB"
    if isinstance(value, str) and value.strip().endswith("%"):
        return parse_amount(value)
    if isinstance(value, str) and re.fullmatch(_NUMBER, value.strip()):
        value = float(value)
    size = _parse(value, _SIZE, _BYTES, expected)
    if isinstance(value, str) and size <= 1:
        raise ValueError(f"{show(value)} is not {expected}")
    return size


def _parse(value: Any, pattern: str, scale: dict[str, float], expected: str) -> float:
    """Read text by `pattern` (a number and a unit of `scale`), and numbers as they are.

    Raises:
        ValueError: not a number, not finite or not above zero.
    """
    if isinstance(value, str):
        match = re.fullmatch(pattern, value.strip())
        if match is None:
            raise ValueError(f"{show(value)} is not {expected}")
        number = float(match[1]) * scale[match[2].lower()]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    else:
        raise ValueError(f"{show(value)} is not {expected}")
    if not 0 < number < math.inf:
        raise ValueError(f"{show(value)} is out of range; it must be finite and above zero")
    return number


def _written_as(*patterns: str, like: str) -> WithJsonSchema:
    """Tell editors that text with a unit, `like` this, is as good as a number."""
    whole = "|".join(f"(?:{pattern})" for pattern in patterns)
    text = {"type": "string", "pattern": f"^\\s*(?:{whole})\\s*$", "examples": [like]}
    return WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, text]})


def _latency_text(value: Any) -> str:
    share, seconds = parse_latency(value)
    return f"{1e3 * (seconds or 0.0):.12g}ms" if share is None else f"{share * 100:.12g}%"


#: A number of things (samples, parameters, multiply-accumulates).
Count = Annotated[float, BeforeValidator(parse_count), Field(gt=0), _written_as(_COUNT, like="450M")]
#: A whole number of things.
WholeCount = Annotated[int, BeforeValidator(parse_count), Field(gt=0), _written_as(_COUNT, like="300k")]
#: A fraction of the supernet when at most 1 (`30%`, `0.3`), an absolute count above.
Amount = Annotated[float, BeforeValidator(parse_amount), Field(gt=0), _written_as(_PERCENT, _COUNT, like="30%")]
#: A fraction of the supernet's memory when at most 1 (`60%`, `0.6`), bytes above.
Size = Annotated[float, BeforeValidator(parse_size), Field(gt=0), _written_as(_PERCENT, _SIZE, like="8GB")]
#: A fraction of the supernet's latency (`60%`) or a duration (`3ms`); kept as text, as 0.003 could be either.
Latency = Annotated[str, BeforeValidator(_latency_text), _written_as(_PERCENT, _DURATION, like="3ms")]
#: A time in seconds.
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0), _written_as(_DURATION, like="3ms")]
