"""What a searched network may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dms_bench.spec.base import Spec
from dms_bench.spec.units import Amount


class MacsBudget(Spec):
    """Multiply-accumulates of one forward pass of one sample."""

    kind: Literal["macs"] = "macs"
    target: Amount

    def label(self) -> str:
        """Return the budget as the leaderboard prints it."""
        return f"macs {format_amount(self.target)}"


class ParamsBudget(Spec):
    """Number of parameters."""

    kind: Literal["params"] = "params"
    target: Amount

    def label(self) -> str:
        """Return the budget as the leaderboard prints it."""
        return f"params {format_amount(self.target)}"


Budget = Annotated[MacsBudget | ParamsBudget, Field(discriminator="kind")]


def format_amount(amount: float) -> str:
    """Write an amount shortly, yet so that different amounts differ: `30%` for a fraction, `450M` for a count."""
    if amount <= 1:
        return f"{amount * 100:.12g}%"
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if amount >= scale:
            return f"{amount / scale:.12g}{letter}"
    return f"{amount:.12g}"
