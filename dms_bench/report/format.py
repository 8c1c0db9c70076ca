"""Numbers as people read them."""

from __future__ import annotations

import math

_DAY_UNITS = ((1.0, "days"), (1 / 24, "h"), (1 / 1440, "min"), (1 / 86400, "s"))

MISSING = "-"
INTERVAL = "95 % intervals over seeds"


def heading(metric: str, unit: str) -> str:
    """Return a measure's name with its unit, if it has one."""
    return f"{metric} [{unit}]" if unit else metric


def measure(mean: float | None, ci95: float | None, digits: int, *, signed: bool = False) -> str:
    """Write a measure with its interval, with so many digits behind the point: `71.3 ± 0.8`."""
    if mean is None:
        return MISSING
    if math.isnan(mean):
        return "nan"
    text = f"{mean:{'+' if signed else ''}.{digits}f}"
    return text if ci95 is None else f"{text} ± {ci95:.{digits}f}"


def p_value(p: float) -> str:
    """Write a p-value: `p = 0.034`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def count(amount: float | None) -> str:
    """Write a count with three digits: `1.57M`, `253k`."""
    if amount is None:
        return MISSING
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(amount) >= scale * 0.9995:
            return f"{three_digits(amount / scale)}{letter}"
    return three_digits(amount)


def number_of(amount: int, noun: str) -> str:
    """Write how many there are of something: `1 trial`, `2,880 trials`."""
    return f"{amount:,} {noun}{'s' * (amount != 1)}"


def milliseconds(latency: float | None) -> str:
    """Write a latency given in milliseconds."""
    return MISSING if latency is None else f"{three_digits(latency)} ms"


def cost(device_days: float | None, kind: str) -> str:
    """Write devices x wall time in the largest unit that it fills: `3.2 GPU-h`, on processors `3.2 core-h`."""
    return _long(device_days, "core" if kind == "cpu" else kind.upper() or "device")


def processor_time(seconds: float | None) -> str:
    """Write for how long processors worked: `41.0 CPU-s`."""
    return _long(None if seconds is None else seconds * _DAY_UNITS[-1][0], "CPU")


def _long(days: float | None, device: str) -> str:
    if days is None:
        return MISSING
    if days == 0:
        return "0"
    size, unit = next((pair for pair in _DAY_UNITS if days >= pair[0]), _DAY_UNITS[-1])
    return f"{three_digits(days / size)} {device}-{unit}"


def three_digits(value: float) -> str:
    """Write a number with three significant digits (below 1: two) and no exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(float(f"{value:.3g}"))))
    decimals = max(0, 2 - exponent) if exponent >= 0 else 1 - exponent
    return f"{value:.{decimals}f}"
