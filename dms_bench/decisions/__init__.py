"""Comparisons that choose their own number of seeds: when a paired difference counts as decided."""

from __future__ import annotations

from dms_bench.decisions.rule import Decided, Outcome, Rule, decide
from dms_bench.decisions.simulate import Power, power

__all__ = ["Decided", "Outcome", "Power", "Rule", "decide", "power"]
