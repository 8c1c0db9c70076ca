"""How labels travel through ATen operators: a rule for each operator, in a file per kind."""

from dms_bench.scaling.tracing.rules import contractions, elementwise, moves, norms
from dms_bench.scaling.tracing.rules.registry import RULES

__all__ = ["RULES", "contractions", "elementwise", "moves", "norms"]
